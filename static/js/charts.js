// Draws every [data-src] of a page with Plotly and keeps it live. Data comes as a Plotly figure
// whose colours are names of CSS tokens, so that charts follow the theme.

const CONFIG = {
  displaylogo: false,
  displayModeBar: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  responsive: true,
};
const EVERY_MS = 2_000;

// A token resolves to a colour Plotly can read: canvas knows what the browser knows.
const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function colour(token, alpha = 1) {
  const name = token.match(/var\((--[\w-]+)\)/)?.[1];
  if (!name) return token;
  const element = document.createElement("i");
  element.className = "probe";
  element.style.color = token;
  document.body.append(element);
  const resolved = getComputedStyle(element).color;
  element.remove();
  probe.clearRect(0, 0, 1, 1);
  probe.fillStyle = resolved;
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
  return `rgba(${r},${g},${b},${alpha})`;
}

// Plotly writes times in UTC; shift them so that the axis reads in the viewer's zone.
function toLocal(ms) {
  return ms - new Date(ms).getTimezoneOffset() * 60_000;
}

function dress(figure) {
  for (const trace of figure.data) {
    if (trace.x0 !== undefined) trace.x0 = toLocal(trace.x0);
    if (trace.x) trace.x = trace.x.map(toLocal);
    trace.line.color = colour(trace.meta.color);
    if (trace.fill === "tozeroy") trace.fillcolor = colour(trace.meta.color, 0.14);
  }
  const ink = colour("var(--ink-2)");
  const line = colour("var(--line)");
  const axis = { color: ink, gridcolor: line, zerolinecolor: line, linecolor: line };
  return {
    data: figure.data,
    layout: {
      ...figure.layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      hoverlabel: {
        bgcolor: colour("var(--sheet)"),
        bordercolor: line,
        font: { color: colour("var(--ink)") },
      },
      xaxis: { ...figure.layout.xaxis, ...axis },
      yaxis: { ...figure.layout.yaxis, ...axis },
    },
  };
}

async function draw(element) {
  if (document.hidden || element.dataset.busy) return;
  element.dataset.busy = "1";
  try {
    const answer = await fetch(element.dataset.src, { headers: { Accept: "application/json" } });
    if (!answer.ok) return; // the page says why; the last drawing stays
    const { data, layout } = dress(await answer.json());
    await window.Plotly.react(element, data, layout, CONFIG);
    element.dataset.drawn = "1";
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the network: the next event tries again
  } finally {
    delete element.dataset.busy;
  }
}

function keepLive(element) {
  let last = 0;
  let timer = 0;
  const soon = () => {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      last = Date.now();
      draw(element);
    }, Math.max(0, last + EVERY_MS - Date.now()));
  };
  document.body.addEventListener(element.dataset.event, soon);
  document.addEventListener("tickbird:theme", () => draw(element));
  document.addEventListener("visibilitychange", soon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(element));
  draw(element);
}

for (const element of document.querySelectorAll(".plot[data-src]")) keepLive(element);
