// What a reader sees on a button is what a speech program has to call it, and what cannot be
// scrolled by a finger must be reachable by the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("button.search-button-field").forEach((button) => button.removeAttribute("aria-label"));
  // A picture of a font is read aloud as the letter that it stands for.
  document.querySelectorAll("button.search-button-field i").forEach((icon) => icon.setAttribute("aria-hidden", "true"));
  // Where a sidebar is a dialog, who leaves it is where it was opened from.
  for (const side of ["primary", "secondary"])
    document.querySelector(`#pst-${side}-sidebar-modal`)
      ?.addEventListener("close", () => document.querySelector(`.${side}-toggle`)?.focus());
  document.querySelectorAll("li.has-children > details > summary").forEach((summary) =>
    summary.setAttribute("aria-label", `Pages of: ${summary.closest("li").querySelector("a").textContent}`));
  // The theme looks for what scrolls when the page is loaded and when its size changes, but not
  // when something unfolds.
  document.querySelectorAll("details").forEach((one) =>
    one.addEventListener("toggle", () => window.dispatchEvent(new Event("resize"))));
});
// Pictures that stick to the screen's lower edge would hide the box that the keyboard reaches.
document.addEventListener("focusin", ({ target }) => {
  if (target.matches(".player [data-block]:focus-visible"))
    target.scrollIntoView({ block: "center", inline: "nearest" });
});
// On a telephone the drawing of a network scrolls, a long formula, and a picture behind sliders,
// unless it fits all but for a little. A picture that is a link is reached anyway, and the theme
// sees to what is printed, but both say whether there is more to see.
const isWide = (box) => box.scrollWidth > box.clientWidth;
const ALL_BUT_FITS = 1.15;
const reachWide = () => {
  document.querySelectorAll(".flipbook > img").forEach((img) =>
    img.classList.toggle("fits", img.naturalWidth < ALL_BUT_FITS * img.parentElement.clientWidth));
  document.querySelectorAll(".drawing-box, .katex-display, .flipbook").forEach((box) =>
    box.setAttribute("tabindex", isWide(box) ? "0" : "-1"));
  document.querySelectorAll("a.enlarge").forEach((link) => link.classList.toggle("wide", isWide(link)));
  // A picture may be there before the rest of the page is.
  document.querySelectorAll(".output.stream:has(pre)").forEach((printed) =>
    printed.classList.toggle("wide", isWide(printed.querySelector("pre"))));
};
["DOMContentLoaded", "resize"].forEach((when) => window.addEventListener(when, reachWide));
// How wide a picture is, is known once it is loaded; that event does not bubble.
document.addEventListener("load", reachWide, true);
// Paper does not unfold, and is white. What was folded, and dark, is so again afterwards.
let before = null;
window.addEventListener("beforeprint", () => {
  if (before) return; // some browsers say it twice
  before = { theme: document.documentElement.dataset.theme, folded: [...document.querySelectorAll("details:not([open])")] };
  document.documentElement.dataset.theme = "light";
  before.folded.forEach((one) => { one.open = true; });
});
window.addEventListener("afterprint", () => {
  if (!before) return;
  document.documentElement.dataset.theme = before.theme;
  before.folded.forEach((one) => { one.open = false; });
  before = null;
});
// What an answer in a quiz gets said, is said aloud as well. Quizzes are built after the page.
// Its answers are one group, whose name is the question.
window.addEventListener("load", () => {
  document.querySelectorAll(".Feedback").forEach((one) => one.setAttribute("aria-live", "polite"));
  document.querySelectorAll(".Quiz").forEach((quiz) => {
    const question = quiz.querySelector("[id^=quizQn]");
    const answers = quiz.querySelector(".Answer");
    if (!question || !answers) return;
    answers.setAttribute("role", "radiogroup");
    answers.setAttribute("aria-labelledby", question.id);
  });
});
