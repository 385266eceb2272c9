"use strict";

const EVERY_MS = 1000;
const BLUE = "#0072B2", ORANGE = "#D55E00", GREEN = "#009E73", GREY = "#8A94A0", INK = "#1B232C";
const FONT = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif";
const MS = 1000;

// What is drawn: [label, key of a second, colour, factor], and dashed what was predicted of it.
const PANELS = [
  { title: "Requests", unit: "", measured: [["running", "running", BLUE, 1], ["waiting", "waiting", ORANGE, 1]] },
  { title: "KV blocks in use", unit: "%", most: 100, measured: [["KV", "kv_use", GREEN, 100]] },
  { title: "Tokens a second", unit: "", measured: [["output", "output_tokens", BLUE, 1], ["prompt", "prompt_tokens", GREY, 1]],
    predicted: [["output", "output_tokens", BLUE, 1]] },
  { title: "Time to first token", unit: "ms", measured: [["P50", "ttft_p50_s", BLUE, MS], ["P99", "ttft_p99_s", ORANGE, MS]],
    predicted: [["P50", "ttft_p50_s", BLUE, MS], ["P99", "ttft_p99_s", ORANGE, MS]] },
  { title: "Time between tokens", unit: "ms", measured: [["P50", "tbt_p50_s", BLUE, MS], ["P99", "tbt_p99_s", ORANGE, MS]],
    predicted: [["P50", "tbt_p50_s", BLUE, MS], ["P99", "tbt_p99_s", ORANGE, MS]] },
  { title: "Mean iteration", unit: "ms", measured: [["measured", "iteration_s", INK, MS]],
    model: [["cost model", "predicted_s", BLUE, MS]] },
];

const state = { seconds: [], last_s: 0 };
const element = (id) => document.getElementById(id);

function tag(name, text, parent) {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

function settings(policy) {
  return Object.entries(policy).filter(([key, value]) => key !== "policy" && value !== null).map(([key, value]) => `${key} ${value}`).join(", ");
}

function number(value, factor = 1, unit = "") {
  if (value === null || value === undefined) return "–";
  const shown = value * factor;
  const digits = shown !== 0 && Math.abs(shown) < 10 ? 1 : 0;
  return `${shown.toLocaleString("en", { maximumFractionDigits: digits })}${unit ? ` ${unit}` : ""}`;
}

function mean(key, count) {
  const values = state.seconds.slice(-count).map((each) => each[key]).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function showNow(data) {
  const last = state.seconds.at(-1), list = element("now");
  if (!last) return;
  const forecast = data.forecasts.at(-1) ?? {};
  const predicted = (key, factor, unit) => key in forecast ? `predicted ${number(forecast[key], factor, unit)}` : "";
  const iteration = mean("iteration_s", 30), foretold = mean("predicted_s", 30);
  const error = iteration && foretold ? `predicted ${number(foretold, MS, "ms")} (${foretold < iteration ? "−" : "+"}${number(Math.abs(foretold / iteration - 1), 100)} %)` : "";
  list.replaceChildren();
  for (const [name, text, small] of [
    ["Running", number(last.running), ""],
    ["Waiting", number(last.waiting), ""],
    ["KV in use", number(last.kv_use, 100, "%"), ""],
    ["Output tokens/s, 10 s", number(mean("output_tokens", 10)), predicted("output_tokens", 1, "")],
    ["TTFT P99", number(last.ttft_p99_s, MS, "ms"), predicted("ttft_p99_s", MS, "ms")],
    ["TBT P99", number(last.tbt_p99_s, MS, "ms"), predicted("tbt_p99_s", MS, "ms")],
    ["Iteration, 30 s", number(iteration, MS, "ms"), error],
  ]) {
    const box = tag("div", "", list);
    tag("dt", name, box);
    tag("small", small, tag("dd", text, box));
  }
}

function line(name, points, key, colour, factor, style) {
  return {
    name, type: "scatter", mode: "lines", connectgaps: false,
    x: points.map((each) => new Date(each.time_s * 1000)),
    y: points.map((each) => each[key] === null || each[key] === undefined ? null : each[key] * factor),
    line: { color: colour, width: 1.8, ...style },
  };
}

// A forecast holds from when it was made until the next, or for half a minute.
function steps(forecasts, now_s) {
  return forecasts.flatMap((each, index) => {
    const until_s = Math.min(forecasts[index + 1]?.time_s ?? now_s, each.time_s + 30);
    return [each, { ...each, time_s: until_s }, { time_s: until_s }];
  });
}

function traces(panel, data) {
  const solid = panel.measured.map(([name, ...rest]) => line(name, state.seconds, ...rest, {}));
  const dashed = { dash: "dash" };
  const model = (panel.model ?? []).map(([name, ...rest]) => line(name, state.seconds, ...rest, dashed));
  const foretold = (panel.predicted ?? []).filter(() => data.forecasts.length)
    .map(([name, ...rest]) => line(`${name} predicted`, steps(data.forecasts, data.time_s), ...rest, dashed));
  return [...solid, ...model, ...foretold, ...(data.forecasts.length ? [] : searched(panel, data))];
}

// Without a simulation: what a search predicted when it chose the policy, for the load that it was told of.
function searched(panel, data) {
  const ends = [state.seconds.at(0), state.seconds.at(-1)].filter(Boolean);
  return (panel.predicted ?? []).filter(([, key]) => key in data.searched).map(([name, key, colour, factor]) =>
    line(`${name} in policy.json`, ends.map((each) => ({ time_s: each.time_s, [key]: data.searched[key] })),
      key, colour, factor, { dash: "dot" }));
}

function layout(panel, data) {
  const from_s = data.time_s - 60 * data.minutes, first_s = state.seconds.at(0)?.time_s ?? from_s;
  const swaps = data.swaps.slice(1).filter((each) => each.time_s > Math.max(from_s, first_s));
  return {
    height: 232, margin: { l: 56, r: 12, t: 30, b: 30 }, showlegend: true,
    font: { family: FONT, size: 12, color: INK }, paper_bgcolor: "white", plot_bgcolor: "white",
    legend: { orientation: "h", x: 0, y: 1.2, font: { size: 11 } }, hovermode: "x unified",
    xaxis: { type: "date", tickformat: "%H:%M:%S", range: [Math.max(from_s, first_s) * 1000, data.time_s * 1000], gridcolor: "#E4E8EC" },
    yaxis: { rangemode: "tozero", gridcolor: "#E4E8EC", zerolinecolor: "#E4E8EC", ticksuffix: panel.unit && ` ${panel.unit}`,
      ...(panel.most ? { range: [0, panel.most] } : {}) },
    shapes: swaps.map((each) => ({ type: "line", x0: each.time_s * 1000, x1: each.time_s * 1000, yref: "paper", y0: 0, y1: 1,
      line: { color: GREY, width: 1.5, dash: "dot" } })),
    annotations: swaps.map((each) => ({ x: each.time_s * 1000, yref: "paper", y: 1, xanchor: "left", yanchor: "top",
      text: each.policy.policy, showarrow: false, font: { size: 10, color: GREY } })),
  };
}

function makePanels() {
  for (const panel of PANELS) {
    const box = tag("section", "", element("panels"));
    box.className = "panel";
    tag("h2", panel.title, box);
    panel.figure = tag("div", "", box);
  }
}

function draw(data) {
  if (!PANELS[0].figure) makePanels();
  for (const panel of PANELS) {
    Plotly.react(panel.figure, traces(panel, data), layout(panel, data), { responsive: true, displayModeBar: false });
  }
}

function notice(text, kind) {
  const box = element("notice");
  box.hidden = !text;
  box.textContent = text;
  box.className = `note ${kind}`;
}

function show(data) {
  state.seconds.push(...data.seconds);
  state.seconds = state.seconds.slice(-60 * data.minutes);
  state.last_s = state.seconds.at(-1)?.time_s ?? 0;
  element("model").textContent = data.model;
  document.title = `${data.model} · Charioteer`;
  element("policy").replaceChildren();
  tag("b", data.policy.policy, element("policy"));
  tag("span", ` ${settings(data.policy)}`, element("policy"));
  notice(data.unhealthy ? `The engine does not serve: ${data.unhealthy}` : data.status, data.unhealthy ? "" : "info");
  showNow(data);
  draw(data);
}

async function ask() {
  const key = sessionStorage.getItem("key");
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(`dashboard/data?since_s=${state.last_s}`, { headers, cache: "no-store" });
  element("door").hidden = answer.ok || ![401, 403].includes(answer.status);
  if (!answer.ok) throw new Error(key || answer.status !== 401 ? `the server answers ${answer.status}` : "the server asks for a key");
  show(await answer.json());
}

async function live() {
  try {
    await ask();
  } catch (error) {
    notice(`No data: ${error.message}`, "");
  }
  setTimeout(live, EVERY_MS);
}

element("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", element("key").value.trim());
  element("key").value = "";
});
live();
