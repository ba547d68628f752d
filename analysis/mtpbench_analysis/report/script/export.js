// The chart as a file: a copy in light colours with its styles written out, so that it needs no stylesheet.
const PAINT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "fill-opacity", "font-family", "font-size", "font-weight"];

/** Returns the text of the SVG, with title, legend and the mark of a simulation. */
function chartAsSvg(comparison, view, width = 900) {
  const root = document.documentElement, before = root.dataset.theme;
  root.dataset.theme = "light";
  const holder = make("div", { class: "offscreen" }), svg = draw("svg", { class: "chart" });
  holder.append(svg);
  document.body.append(holder);
  const { content } = drawChart(svg, comparison, view, width);
  const height = Number(svg.getAttribute("height")), lines = content.series.length;
  const inner = draw("g", { transform: "translate(0 30)" });
  inner.append(...svg.childNodes);
  svg.append(draw("path", { class: "paper", d: `M0,0H${width}V${height + 44 + 18 * lines}H0z` }), inner);
  svg.append(drawText(14, 22, comparison.title, { class: "heading" }));
  content.series.forEach(({ curve }, i) => {
    const y = height + 44 + 18 * i;
    const mark = draw("g", { class: `point c${toneOf(curve)}`, transform: `translate(24 ${y})` });
    mark.append(draw("path", { class: "shape", d: shapeOf(curve) }));
    svg.append(mark, drawText(36, y + 4, curve.name, { class: "axis" }));
  });
  svg.setAttribute("height", height + 44 + 18 * lines);
  svg.setAttribute("viewBox", `0 0 ${width} ${height + 44 + 18 * lines}`);
  for (const element of svg.querySelectorAll("path, text")) {
    const style = getComputedStyle(element);
    for (const name of PAINT) {
      const value = style.getPropertyValue(name);
      if (value) element.setAttribute(name, value);
    }
  }
  for (const element of svg.querySelectorAll("[class], [tabindex]")) {
    element.removeAttribute("class");
    element.removeAttribute("tabindex");
  }
  svg.removeAttribute("class");
  const text = new XMLSerializer().serializeToString(svg);
  holder.remove();
  if (before === undefined) delete root.dataset.theme; else root.dataset.theme = before;
  return text;
}

async function chartAsPng(comparison, view) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(chartAsSvg(comparison, view))}`;
  await image.decode();
  const canvas = make("canvas", { width: image.width * 2, height: image.height * 2 });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}
