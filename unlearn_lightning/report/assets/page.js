"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const markers = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "hexagon"];
  const sizes = [6, 6, 7, 8, 8, 7, 6, 7]; // a triangle looks smaller than a circle of its width
  const hidden = new Set();
  const plots = [...document.querySelectorAll(".plot")];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (path) => css(`--c${path % 8}`);
  const fade = (hex) => hex + "28";
  // On paper three panels share 182 mm, in light colours; the size is given because the page is still laid out for the screen.
  const printing = () => document.documentElement.classList.contains("printing");
  const shown = (line) => !line.paths.some((path) => hidden.has(path));
  function number(value) {
    const size = Math.abs(value);
    const text = size >= 1e6 || (value && size < 0.01) ? value.toExponential(2) : size >= 1000 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
    return text.replaceAll("-", "−");
  }

  function traces(chart, panel) {
    const made = [];
    for (const line of panel.lines) {
      const first = line.hues[0], last = line.hues[line.hues.length - 1];
      const visible = shown(line), tint = colour(first);
      if (line.low.length) {
        const known = line.x.map((_, i) => i).filter((i) => line.low[i] !== null);
        made.push({
          x: [...known.map((i) => line.x[i]), ...known.map((i) => line.x[i]).reverse()],
          y: [...known.map((i) => line.high[i]), ...known.map((i) => line.low[i]).reverse()],
          mode: "lines", fill: "toself", fillcolor: fade(tint), line: { width: 0 }, hoverinfo: "skip", showlegend: false, visible, meta: line.paths,
        });
      }
      const between = line.x.map((_, i) =>
        line.low.length && line.low[i] !== null ? ` (${number(line.low[i])} to ${number(line.high[i])})` : "");
      made.push({
        x: line.x, y: line.y, name: line.name, mode: line.level ? "lines" : "lines+markers", visible, meta: line.paths,
        customdata: line.x.map((_, i) => number(line.y[i]) + between[i]),
        hovertemplate: chart === data.charts.frontier ? `${line.name}: %{x:.3g} nats, %{customdata}<extra></extra>` : "%{customdata}<extra>%{fullData.name}</extra>",
        line: { color: tint, width: line.level ? 1.5 : 2, dash: line.level ? "dash" : "solid" },
        marker: { color: colour(last), symbol: markers[last % 8], size: sizes[last % 8], line: { color: first === last ? css("--paper") : tint, width: 1 } },
      });
    }
    return made;
  }

  function layout(chart, index) {
    const soft = css("--soft"), grid = css("--line");
    const axis = { gridcolor: grid, zeroline: false, linecolor: grid, tickcolor: grid, automargin: true, fixedrange: true };
    const range = chart.y_ranges[index], [tickvals, ticktext] = chart.y_ticks[index] ?? [];
    const scale = tickvals ? { type: "log", range: range.map(Math.log10), tickvals, ticktext } : { range, nticks: 6 };
    const named = chart.x_ticks.length ? { tickvals: chart.x_ticks.map((_, i) => i), ticktext: chart.x_ticks, range: [-0.25, chart.x_ticks.length - 0.75] } : {};
    return {
      xaxis: { ...axis, title: { text: chart.x_title, font: { size: 12 }, standoff: 6 }, nticks: 7, unifiedhovertitle: { text: chart.x_ticks.length ? "" : `${chart.x_title.split(" ").pop()} %{x}` }, ...named },
      yaxis: { ...axis, ...scale },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: soft },
      hoverlabel: { bgcolor: css("--paper"), bordercolor: grid, font: { color: css("--ink"), size: 12 } },
      margin: { l: 44, r: 8, t: 8, b: 36 }, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hovermode: chart === data.charts.frontier ? "closest" : "x unified", dragmode: false, hoverdistance: 30,
      ...(printing() ? { width: 222, height: 176 } : { autosize: true }),
    };
  }

  function draw(plot) {
    const chart = data.charts[plot.dataset.chart];
    plot.dataset.drawn = "yes";
    Plotly.react(plot, traces(chart, chart.panels[plot.dataset.panel]), layout(chart, +plot.dataset.panel), { displayModeBar: false, responsive: true });
  }

  // Only what comes into view is drawn, so that the page opens at once; printing draws the rest.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }, { rootMargin: "600px" });
  plots.forEach((plot) => watcher.observe(plot));
  const redraw = () => plots.forEach((plot) => (printing() || plot.dataset.drawn) && draw(plot));
  const print = (on) => { document.documentElement.classList.toggle("printing", on); redraw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));

  const buttons = [...document.querySelectorAll("#legend button")];
  function toggle() {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(!hidden.has(+button.dataset.path))));
    for (const plot of plots) {
      if (plot.data) Plotly.restyle(plot, { visible: plot.data.map((trace) => shown({ paths: trace.meta })) });
    }
  }
  buttons.forEach((button) => {
    const path = +button.dataset.path;
    button.addEventListener("click", () => { if (!hidden.delete(path)) hidden.add(path); toggle(); });
    button.addEventListener("dblclick", () => {
      const alone = data.paths.every((other) => other.index === path || hidden.has(other.index)) && !hidden.has(path);
      hidden.clear();
      if (!alone) data.paths.forEach((other) => other.index !== path && hidden.add(other.index));
      toggle();
    });
  });

  // The explorer. Text from the probes goes in as text nodes only, never as markup.
  const titles = { predictions: "predictions", label: "the label's log-likelihood", math: "math problems" };
  const choice = {};
  function element(tag, attributes = {}, ...children) {
    const made = tag === "svg" || tag === "polyline" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function select(name, label, options, chosen) {
    const menu = element("select", { name }, ...options.map(([value, text]) => element("option", { value }, text)));
    menu.value = chosen;
    choice[name] = menu;
    menu.addEventListener("change", explore);
    return element("label", { class: "choice" }, label, menu);
  }

  function sparkline(entry, paths) {
    const values = entry.curves.flat(), low = Math.min(...values), high = Math.max(...values), end = entry.steps[entry.steps.length - 1];
    const lines = entry.curves.map((curve, i) => element("polyline", {
      points: curve.map((y, j) => `${(entry.steps[j] / (end || 1)) * 160},${46 - ((y - low) / (high - low || 1)) * 42}`).join(" "),
      fill: "none", "stroke-width": 2, "stroke-linejoin": "round", style: `stroke: ${entry.curves.length > 1 ? `var(--c${paths[i] % 8})` : "var(--soft)"}`,
    }));
    return element("div", { class: "spark" }, element("svg", { viewBox: "0 0 160 50", preserveAspectRatio: "none", "aria-hidden": "true" }, ...lines));
  }

  function explore() {
    const target = document.getElementById("examples");
    if (!target) return;
    const view = choice.view.value, pair = [+choice.a.value, +choice.b.value].sort((x, y) => x - y);
    const found = data.explorer.views[view]?.[choice.objective.value]?.[pair.join("-")] ?? [];
    const [a, b] = pair.map((index) => data.paths[index].label);
    const cards = found.map((entry) => {
      const [text, answer] = data.explorer.texts[entry.id] ?? ["", ""];
      const last = (curve) => number(curve[curve.length - 1]);
      const gap = view === "predictions" ? `squared distance ${number(entry.gap)} nats²`
        : view === "label" ? `${a}: ${last(entry.curves[0])} nats, ${b}: ${last(entry.curves[1])} nats`
        : `solved in ${a}: ${Math.round(entry.shares[0] * 100)}%, ${b}: ${Math.round(entry.shares[1] * 100)}%`;
      const card = element("article", { class: "example" },
        element("p", {}, text || entry.id), element("p", { class: "answer" }, answer && entry.attempts ? `Answer: ${answer}` : answer),
        element("p", { class: "gap" }, gap, " ", element("span", { class: "id" }, entry.id)));
      if (entry.curves) card.append(sparkline(entry, pair));
      if (entry.attempts) card.append(element("div", { class: "attempts" },
        ...entry.attempts.map((attempt, i) => element("p", {}, element("i", { class: `dot c${pair[i] % 8}` }), `${[a, b][i]}: ${attempt}`))));
      return card;
    });
    const none = pair[0] === pair[1] ? "Choose two different paths." : "These two paths do not differ here, or were not both measured.";
    target.replaceChildren(...(cards.length ? cards : [element("p", { class: "caption" }, none)]));
  }

  const choices = document.getElementById("choices");
  if (choices) {
    const views = Object.keys(data.explorer.views), paths = data.paths.map((path) => [path.index, path.label]);
    const objectives = [...new Set(views.flatMap((view) => Object.keys(data.explorer.views[view])))].map((name) => [name, name]);
    choices.append(
      select("a", "Paths", paths, 0), select("b", "and", paths, data.paths.length - 1),
      select("objective", "under", objectives, objectives[0][0]), select("view", "by", views.map((view) => [view, titles[view]]), views[0]));
    explore();
  }

  // While the study runs, version.svg beside this page tells by its width which version is the newest: a picture may be looked at where
  // the page is a plain file, and can run nothing. What the reader sees, hid and opened is carried over to the new page.
  const place = `unlearning report ${location.pathname}`;
  const anchors = () => [...document.querySelectorAll("header, section")];
  const folds = () => [...document.querySelectorAll("details")].map((one, i, all) => {
    const home = one.closest("section")?.id ?? "header";
    return [one, `${home} ${all.slice(0, i).filter((other) => (other.closest("section")?.id ?? "header") === home).length}`];
  });
  function keep() {
    const anchor = anchors().filter((one) => one.getBoundingClientRect().top <= 80).pop() ?? anchors()[0];
    const state = {
      anchor: anchor.id, offset: anchor.getBoundingClientRect().top, hidden: [...hidden],
      choices: Object.fromEntries(Object.entries(choice).map(([name, menu]) => [name, menu.value])),
      folds: Object.fromEntries(folds().map(([one, name]) => [name, one.open])),
    };
    try { sessionStorage.setItem(place, JSON.stringify(state)); } catch { /* Without storage the page begins at its top. */ }
  }
  function restore() {
    let state = null;
    try { state = JSON.parse(sessionStorage.getItem(place)); sessionStorage.removeItem(place); } catch { return; }
    if (!state) return;
    history.scrollRestoration = "manual";
    state.hidden.forEach((path) => hidden.add(path));
    for (const [one, name] of folds()) if (name in state.folds) one.open = state.folds[name];
    for (const [name, menu] of Object.entries(choice)) {
      if ([...menu.options].some((option) => option.value === state.choices[name])) menu.value = state.choices[name];
    }
    if (choices) explore();
    toggle();
    const anchor = (state.anchor && document.getElementById(state.anchor)) || anchors()[0];
    window.scrollBy({ top: anchor.getBoundingClientRect().top - state.offset, behavior: "instant" });
  }
  function follow() {
    const picture = new Image();
    const again = () => setTimeout(follow, 2000);
    picture.onerror = again;
    picture.onload = () => {
      if (picture.naturalWidth === data.version || String(getSelection())) return again();
      keep();
      location.reload();
    };
    picture.src = `version.svg?${Date.now()}`;
  }
  restore();
  if (data.live) follow();
})();
