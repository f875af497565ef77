// A script in an output may run before or after the page is complete, and more than once.
(name, [values, pictures, alts]) => {
  const book = document.getElementById(name);
  const picture = book.querySelector("img");
  const sliders = [...book.querySelectorAll("input")];
  const shown = [...book.querySelectorAll("output")];
  const turn = () => {
    let page = 0;
    sliders.forEach((slider, k) => {
      page = page * values[k].length + Number(slider.value);
      shown[k].value = values[k][slider.value];
      slider.setAttribute("aria-valuetext", values[k][slider.value]);
    });
    picture.src = "data:image/webp;base64," + pictures[page];
    picture.alt = alts[page];
  };
  sliders.forEach((slider) => slider.addEventListener("input", turn));
  turn();
}
