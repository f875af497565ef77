// What the search shows first: chapters that explain, in their order, above all the one that teaches
// a term of the glossary (chapter_pages.py) or has the words typed in its title; then other pages,
// those of the code, and names of the code. A name that was typed, by its underscore or dot, keeps
// its place.
var Scorer = {
  score: ([page, title, anchor, object, score]) => {
    const typed = (new URLSearchParams(window.location.search).get("q") ?? "").trim().toLowerCase();
    if (object) return /[._]/.test(typed) ? score : score - 100;
    // A term of the glossary, typed whole, counts 100, and would come before the chapter on it.
    if (page === "book/glossary") return Math.min(score, 12);
    if (title.toLowerCase().includes(typed)) score += 10;
    const chapter = page.match(/^notebooks\/(\d+)/);
    if (chapter && TAUGHT_IN[typed] === Number(chapter[1])) score += 10;
    // Last of them the quickstart, which has all words.
    if (chapter) return score + 2 - (Number(chapter[1]) || 99) / 100;
    return /changelog|\/api/.test(page) ? score - 10 : score;
  },
  // As in Sphinx: a name found whole and in part, how much that counts, and words on pages.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
// An excerpt is of what a page says, not of the buttons around it. Where the page has the word typed
// only among its keywords, it is how the page begins.
document.addEventListener("DOMContentLoaded", () => {
  const { htmlToText, makeSearchSummary } = Search;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector("article");
    if (article) page.querySelector("[role=main]").replaceChildren(article);
    page.querySelectorAll("h1, .chain-strip").forEach((one) => one.remove());
    return htmlToText(page.documentElement.outerHTML, anchor).trim();
  };
  Search.makeSearchSummary = (html, words, anchor) => {
    const excerpt = makeSearchSummary(html, words, anchor);
    const text = excerpt?.textContent ?? "";
    if (![...words].some((word) => text.toLowerCase().includes(word)))
      excerpt?.replaceChildren(text.replace(/^\.\.\.(.*)$/s, "$1 …"));
    return excerpt;
  };
});
