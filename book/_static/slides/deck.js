// A slide is 1280 by 720; on a telephone held upright it is as tall as the screen, on paper wide.
const onPaper = location.search.includes("print-pdf");
const size = () => {
  const upright = !onPaper && innerHeight > innerWidth;
  document.documentElement.classList.toggle("upright", upright);
  return upright
    ? { width: 720, height: Math.round(720 * innerHeight / innerWidth) }
    : { width: 1280, height: 720 };
};
Reveal.initialize({
  ...size(),
  center: false,
  hash: true,
  margin: 0,
  maxScale: 4,
  minScale: 0.1,
  plugins: [RevealNotes, RevealZoom],
  scrollActivationWidth: null,
  slideNumber: "c/t",
  transition: "none",
}).then(() => document.querySelector(".reveal").removeAttribute("role")); // its main is to be read
if (!onPaper) addEventListener("resize", () => Reveal.configure(size()));
