// Runs in a page of `pgwake bench`, and says on the console what its readers would stumble over, then what it
// has looked at.
const said = new Set();
const say = (what) => said.has(what) || (said.add(what), console.log(what));
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const box = (element) => element.getBoundingClientRect();
const isShown = (element) => element.getClientRects().length > 0;
const holds = (outer, inner, slack) =>
  inner.left >= outer.left - slack && inner.right <= outer.right + slack &&
  inner.top >= outer.top - slack && inner.bottom <= outer.bottom + slack;
const meet = (a, b) =>
  a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;

const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = channels(colour).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return channels(colour)[3] === 0 ? background(element.parentElement) : colour;
};
// As WCAG 2 has it: 4.5 for text, 3 for what is drawn.
const contrast = (element, property) => {
  const [a, b] = [getComputedStyle(element)[property], background(element)].map(luminance);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const stands_out = (element, property, least) => {
  const found = getComputedStyle(element)[property] === "none" ? 0 : contrast(element, property);
  if (found < least) say(`"${element.textContent.trim() || element.classList}" has a contrast of ${found.toFixed(1)}`);
};

const width = document.documentElement.scrollWidth;
if (width > innerWidth) say(`the page is ${width} wide`);
for (const element of all("h1, h2, h3, p, li, dt, dd, th, td")) {
  stands_out(element, "color", 4.5);
  const scrolls = element.closest(".scroll");
  if (!scrolls && !holds({ left: 0, right: innerWidth, top: 0, bottom: 1e9 }, box(element), 0)) {
    say(`"${element.textContent.trim()}" lies outside`);
  }
}
const plots = all("svg.plot");
for (const plot of plots) {
  const figure = plot.closest("figure");
  const title = figure.querySelector("h3").textContent;
  const lines = all("path.line", plot);
  const marks = all("circle", plot);
  if (lines.length === 0) say(`${title}: nothing is drawn`);
  for (const mark of [...lines, ...marks]) {
    const place = box(mark);
    if (place.width === 0 || !holds(box(plot), place, 6)) say(`${title}: a mark of no size, or outside`);
    if (mark.classList.contains("faint")) continue;
    stands_out(mark, mark.matches("circle") ? "fill" : "stroke", 3);
  }
  for (const item of all(".legend path", figure)) {
    const style = [...item.classList].find((name) => /^s\d$/.test(name));
    if (!lines.some((line) => line.classList.contains(style))) say(`${title}: no line is ${style}`);
  }
  const texts = all("text", plot).filter(isShown);
  for (const [i, text] of texts.entries()) {
    stands_out(text, "fill", 4.5);
    if (parseFloat(getComputedStyle(text).fontSize) < 10) say(`${title}: small letters`);
    if (!holds(box(figure), box(text), 1)) say(`${title}: "${text.textContent}" leaves the figure`);
    const other = texts.slice(i + 1).find((other) => meet(box(text), box(other)));
    if (other) say(`${title}: "${text.textContent}" lies on "${other.textContent}"`);
  }
}
say("LOOKED AT " + JSON.stringify({
  width: innerWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  charts: plots.map((plot) => plot.closest("figure").querySelector("h3").textContent),
  colours: ["body", "section", "path.line"].map((selector) => {
    const style = getComputedStyle(document.querySelector(selector));
    return selector === "path.line" ? style.stroke : style.backgroundColor;
  }),
}));
