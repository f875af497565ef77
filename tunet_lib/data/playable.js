// A script in an output may run before or after the page is complete, and more than once.
(name, [image, [height, width], shown]) => {
  const player = document.getElementById(name);
  const boxes = [...player.querySelectorAll("[data-block]")];
  const says = player.querySelector(".player-says");
  const [patch, map] = player.querySelectorAll(".player-pictures svg");
  const sliders = [...player.querySelectorAll("input")];
  const outputs = [...player.querySelectorAll("output")];
  let now = "w0";

  const picture = (svg, data, rows, columns) => {
    svg.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    svg.innerHTML = `<image width="${columns}" height="${rows}" preserveAspectRatio="none"
      style="image-rendering: pixelated" href="data:image/png;base64,${data}"/>
      <rect fill="none" stroke="#E69F00" vector-effect="non-scaling-stroke" stroke-width="2.5"/>`;
  };
  const frame = (svg, x, y, w, h) => Object.entries({ x, y, width: w, height: h })
    .forEach(([key, value]) => svg.querySelector("rect").setAttribute(key, value));

  const see = () => {
    const { rows, columns, slices } = shown[now];
    const [row, column] = sliders.map((slider) => Number(slider.value));
    const [top, bottom] = rows[row], [left, right] = columns[column];
    const [h, w] = [bottom - top + 1, right - left + 1];
    frame(map, column, row, 1, 1);
    frame(patch, left, top, w, h);
    outputs[0].value = row;
    outputs[1].value = column;
    const code = document.createElement("code");
    code.textContent = shown[now].code;
    says.replaceChildren(`${shown[now].says} The voxel at row ${row}, column ${column} sees ` +
      `${slices[1] - slices[0] + 1} × ${h} × ${w} voxels of the patch. Code: `, code);
  };
  const choose = (block) => {
    if (!(block in shown)) return;
    const before = shown[now], { rows, columns, picture: data } = shown[block];
    sliders.forEach((slider, axis) => {
      const [old, fresh] = axis ? [before.columns, columns] : [before.rows, rows];
      const place = (Number(slider.value) + 0.5) / old.length;
      slider.max = fresh.length - 1;
      slider.value = Math.floor(place * fresh.length);
    });
    now = block;
    boxes.forEach((box) => box.setAttribute("aria-pressed", box.dataset.block === block));
    picture(map, data, rows.length, columns.length);
    map.setAttribute("aria-label", shown[block].says);
    see();
  };

  boxes.forEach((box) => {
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "button");
    for (const event of ["click", "focus"])
      box.addEventListener(event, () => choose(box.dataset.block));
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(box.dataset.block);
    });
  });
  map.addEventListener("click", (event) => {
    const place = map.getBoundingClientRect(), { rows, columns } = shown[now];
    sliders[0].value = Math.floor((event.clientY - place.top) / place.height * rows.length);
    sliders[1].value = Math.floor((event.clientX - place.left) / place.width * columns.length);
    see();
  });
  sliders.forEach((slider) => slider.addEventListener("input", see));
  picture(patch, image, height, width);
  sliders.forEach((slider, axis) => {
    slider.max = (axis ? width : height) - 1;
    slider.value = (axis ? width : height) / 2;
  });
  choose("w0");
}
