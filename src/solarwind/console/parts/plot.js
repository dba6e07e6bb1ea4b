// Events a second over a time, drawn by uPlot; the numbers at the pointer stand below it.
import { html, useEffect, useRef } from "../core/ui.js";
import { theme } from "../core/theme.js";
import uPlot from "../vendor/uplot.js";

const SERIES = [["fired", "--plot-1"], ["settled", "--plot-2"], ["retried", "--plot-3"], ["dead", "--plot-4"]];
const HEIGHT = 190;

// `counts` are lists of `fired`, `settled`, `retried` and `dead`, in slots of `step` seconds up to the time `end`.
// `marks` are {at, text}: what happened then.
export function RatePlot({ counts, step, end, marks = [] }) {
  const place = useRef(null);
  const plot = useRef(null);
  const last = Math.floor(Date.parse(end) / 1000 / step) * step;
  const size = counts.fired.length - 1; // the last slot is not over yet
  const times = Array.from({ length: size }, (_, at) => last - (size - at) * step);
  const data = [times, ...SERIES.map(([name]) => counts[name].slice(0, -1).map((each) => each / step))];
  const marked = useRef(marks);
  marked.current = marks;
  useEffect(() => {
    const made = new uPlot(options(place.current, marked), data, place.current);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    observer.observe(place.current);
    const system = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => made.redraw(false);
    system.addEventListener("change", redraw);
    return () => {
      observer.disconnect();
      system.removeEventListener("change", redraw);
      made.destroy();
    };
  }, [step, theme.value]);
  useEffect(() => plot.current.setData(data), [end]);
  const now = SERIES.map(([name], at) => `${name} ${data[at + 1].at(-1).toFixed(1)}`).join(", ");
  return html`<div class="plot" ref=${place} role="img" aria-label=${`Events a second: at last ${now}`}></div>`;
}

function options(element, marks) {
  const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    cursor: { drag: { x: false, y: false } },
    legend: { markers: { width: 0 } },
    scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [axis, { ...axis, size: 46, values: (_, values) => values.map((each) => each.toLocaleString("en-US")) }],
    series: [
      { value: (_, time) => (time === null ? "–" : new Date(time * 1000).toLocaleTimeString("sv-SE")) },
      ...SERIES.map(([label, name], at) => ({
        label,
        stroke: () => colour(name),
        width: 1.5,
        dash: at > 1 ? [4, 3] : undefined,
        points: { show: false },
        value: (_, each) => (each === null ? "–" : `${each.toFixed(1)}/s`),
      })),
    ],
    hooks: { draw: [(made) => drawMarks(made, marks.current, colour)] },
  };
}

function drawMarks(made, marks, colour) {
  const { ctx, bbox } = made;
  const [from, until] = [made.scales.x.min, made.scales.x.max];
  ctx.save();
  ctx.strokeStyle = colour("--accent");
  ctx.fillStyle = colour("--text");
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  for (const { at, text } of marks) {
    if (at < from || at > until) continue;
    const x = Math.round(made.valToPos(at, "x", true));
    ctx.beginPath();
    ctx.setLineDash([2, 3]);
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const right = x > bbox.left + bbox.width / 2;
    ctx.textAlign = right ? "right" : "left";
    ctx.fillText(text, x + (right ? -5 : 5), bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}
