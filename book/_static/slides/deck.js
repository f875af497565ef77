// A slide is 1280 by 720; on a telephone held upright as tall as its screen, and on paper always wide.
const onPaper = /print-pdf|view=print/.test(location.search);
const size = () => onPaper || innerWidth >= innerHeight
  ? { width: 1280, height: 720 }
  : { width: 720, height: Math.round(720 * innerHeight / innerWidth) };
Reveal.initialize({
  ...size(),
  margin: 0,
  center: false,
  display: "flex",
  hash: true,
  maxScale: 4,
  minScale: 0.1,
  pdfSeparateFragments: false,
  plugins: [RevealNotes],
  scrollActivationWidth: null,
  slideNumber: "c/t",
  transition: "none",
});
if (!onPaper) addEventListener("resize", () => Reveal.configure(size()));
