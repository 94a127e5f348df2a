// Pictures: decoded ones, those of the map, and one's own.

function paint(canvas, values) {
  [canvas.width, canvas.height] = [width, height];
  canvas.classList.toggle("sharp", width < 200);
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++)
      pixels.data[4 * i + c] = Math.round(255 * values[i * channels + (channels === 3 ? c : 0)]);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const atlas = new Image();

function tile(canvas, row) {
  const { width: w, height: h, columns } = page.atlas;
  [canvas.width, canvas.height] = [w, h];
  canvas.classList.add("sharp");
  const from = [(row % columns) * w, Math.floor(row / columns) * h];
  canvas.getContext("2d").drawImage(atlas, ...from, w, h, 0, 0, w, h);
}

const named = (row) => {
  const of = page.colours[0];
  const has = images && of && of.of[row] >= 0 ? `, ${of.name} ${of.names[of.of[row]]}` : "";
  return page.names[row] + has;
};

async function own(file) {
  try {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    const canvas = element("original");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = page.observed.background;
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    const scale = Math.max(width / bitmap.width, height / bitmap.height);
    const [w, h] = [scale * bitmap.width, scale * bitmap.height];
    context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
    const pixels = context.getImageData(0, 0, width, height);
    const bytes = new Float32Array(width * height * channels);
    for (let i = 0; i < width * height; i++) {
      let rgb = [...pixels.data.subarray(4 * i, 4 * i + 3)];
      if (element("invert").checked) rgb = rgb.map((v) => 255 - v);
      const [r, g, b] = rgb;
      if (channels !== 3) rgb = [Math.round((299 * r + 587 * g + 114 * b) / 1000)];
      for (let c = 0; c < channels; c++) bytes[i * channels + c] = rgb[c];
    }
    paint(canvas, bytes.map((v) => v / 255));
    const { above, shift, most } = page.observed;
    const x = bytes.map((v) => (above === undefined ? (v + shift) / most : v > above ? 1 : 0));
    const z = await encode(x);
    element("beside").hidden = false;
    element("beside").style.visibility = "visible";
    canvas.setAttribute("aria-label", `The picture itself: ${file.name}`);
    element("original-name").textContent = file.name;
    [state.row, state.moved] = [-1, true];
    state.z = z;
    changed();
    say(above === undefined ? "" : "encoded in black and white: what is above the middle grey is white");
  } catch (error) {
    say(`${file.name} cannot be encoded: ${error.message}`, true);
  }
}

function makeOwn() {
  if (!page.observed) return;
  element("own").hidden = false;
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    if (file) own(file);
    element("file").value = "";
  });
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
    document.addEventListener(name, (event) => {
      event.preventDefault();
      element("drop").classList.toggle("over", over);
      if (name === "drop" && event.dataTransfer.files.length) own(event.dataTransfer.files[0]);
    });
}
