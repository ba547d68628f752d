// The panel "Look closer" of one run: latencies, power, acceptance, health, command lines, provenance.
function factList(facts) {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of facts) list.append(make("dt", { class: name === "INVALID" ? "bad" : null }, name), make("dd", {}, value));
  return list;
}

function textTable(headers, rows, textColumns = 1) {
  const kind = (i) => ({ class: i < textColumns ? "word" : null });
  const head = make("tr", {}, ...headers.map((text, i) => make("th", { scope: "col", ...kind(i) }, text)));
  const body = rows.map((row) => make("tr", {}, ...row.map((text, i) => make(i ? "td" : "th", { scope: i ? null : "row", ...kind(i) }, text))));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function buildCloser(comparison) {
  const groups = traceGroups(comparison);
  parts.runs = groups.flatMap((group) => group.entries);
  if (!groups.length) {
    parts.whole = make("div", { class: "entire", role: "region", "aria-label": "The whole recipe", tabindex: "-1", hidden: true });
    return parts.whole;
  }
  const select = make("select", { name: "closer" }, make("option", { value: "" }, "choose a point"));
  for (const { label, entries } of groups) {
    select.append(make("optgroup", { label }, ...entries.map(({ number, text }) => make("option", { value: String(number) }, text))));
  }
  select.addEventListener("change", () => openPoint(select.value === "" ? null : Number(select.value)));
  const heading = make("h3", { tabindex: "-1", id: "closer-heading" }, "Look closer");
  const body = make("div", { class: "closer-body", "aria-live": "off" });
  const close = button("close", () => closePoint(), { name: "close-closer", hidden: true });
  const region = make("div", { class: "closer", role: "region", "aria-labelledby": "closer-heading" }, heading,
    make("div", { class: "bar screen" }, labelled("point", select), close), body);
  region.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.point !== null) closePoint(); });
  Object.assign(parts, { closer: { region, select, body, heading, close } });
  return region;
}

/** Opens the panel of a run by its number; null closes it. */
function openPoint(number) {
  state.point = number;
  renderCloser();
  writeAddress();
}

function closePoint() {
  const number = state.point, entry = parts.points.find(({ point }) => point.traces.includes(number));
  openPoint(null);
  if (entry) focusOn(parts.points.indexOf(entry)); else parts.closer.select.focus();
}

/** Shows all facts of a point on a page without traces. */
function showWhole(entry, jump) {
  const { whole } = parts, { point, curve } = entry;
  const close = () => {
    whole.hidden = true;
    focusOn(parts.points.indexOf(parts.points.find((drawn) => drawn.point === point) || parts.points[0]));
  };
  whole.replaceChildren(make("p", { class: "name" }, `${nameOf(entry)}, ${point.recipe}`), factList(pointFacts(point, curve, shownComparison, state)),
    make("div", { class: "tools" }, button("close", close, { name: "close-whole" })));
  whole.onkeydown = (event) => { if (event.key === "Escape") close(); };
  whole.hidden = false;
  if (jump) whole.focus();
}

/** Opens the panel of a point's first run. `jump` moves the keyboard's focus there too. */
function lookCloser(entry, jump) {
  if (!parts.closer) {
    showWhole(entry, jump);
    return;
  }
  const [number] = entry.point.traces;
  if (number === undefined) {
    openPoint(null);
    parts.closer.body.replaceChildren(make("p", { class: "name" }, `${nameOf(entry)}, ${entry.point.recipe}`),
      make("p", {}, "Nothing more than this is recorded, as this point does not come from a results folder."),
      factList(pointFacts(entry.point, entry.curve, shownComparison, state)));
  } else {
    openPoint(number);
  }
  if (jump) parts.closer.heading.focus();
}

function renderCloser() {
  if (!parts.closer) return;
  const { region, select, body, close } = parts.closer;
  const run = parts.runs.find((candidate) => candidate.number === state.point);
  if (!run) state.point = null;
  select.value = run ? String(run.number) : "";
  close.hidden = !run;
  region.classList.toggle("open", Boolean(run));
  if (!run) {
    body.replaceChildren(make("p", { class: "dim screen" }, `${shownComparison ? "Click a point of the chart, press Enter on it, or choose one here" : "Choose a point"}: latencies of its `
      + "requests, power over time, acceptance by position, health of the run, command lines."));
    return;
  }
  const trace = traceAt(run.number), whole = Math.max(260, Math.floor(region.clientWidth || 880) - 26);
  const half = whole >= 620 ? Math.floor((whole - 20) / 2) : whole;
  const tone = `tone${run.curve ? toneOf(run.curve) : 0}`, { mark } = trace;
  const title = `${run.curve ? run.curve.label : trace.arm}, ${trace.recipe}`;
  body.replaceChildren(
    make("p", { class: "name" }, title, mark ? make("strong", { class: "mark" }, ` ${mark}`) : "",
      trace.reasons.length ? make("strong", { class: "bad" }, " INVALID") : ""),
    latencyPart(trace, half, tone, mark), powerPart(trace, half, tone, mark), acceptancePart(trace, half, tone, mark),
    part("Health of the run", factList(healthFacts(trace))), ...recipePart(run), commandPart(trace), placePart(trace));
}

const recipePart = ({ point, curve }) => (point && point.recipe ? [make("details", { class: "part recipe" }, make("summary", {}, "The whole recipe"),
  factList(pointFacts(point, curve, shownComparison, state)))] : []);

const part = (title, ...children) => make("div", { class: "part" }, make("h4", {}, title), ...children);

function latencyPart(trace, width, tone, mark) {
  const latencies = [["TTFT", "ttft", 1, "s"], ["TPOT", "tpot", 1000, "ms"]].filter(([, id]) => trace[id]);
  const plots = latencies.filter(([, id]) => trace[`${id}_s`].length).map(([name, id, factor, unit]) =>
    latencyPlot({ name, values: trace[`${id}_s`], figures: trace[id], factor, unit, width, tone, mark }));
  const rows = [...latencies, ["E2EL", "e2el", 1, "s"]].filter(([, id]) => trace[id]).map(([name, id, factor, unit]) =>
    [`${name}, ${unit}`, fixed(trace[id].count, 0), ...page.traces.distribution.slice(1).map((statistic) => significant(trace[id][statistic] * factor, 5))]);
  const notes = [];
  if (rows.length) notes.push(`Of the requests counted: measured, ended well${trace.open_loop ? ". Open loop: TTFT and E2EL count from when a request was due, waiting for a slot included" : ", in the steady-state window"}.`);
  const counts = [...new Set(latencies.map(([, id]) => trace[id].count))].filter((count) => count < FEW_REQUESTS);
  if (counts.length) notes.push(`The p99 of ${counts.map((count) => fixed(count, 0)).join(" or ")} requests is nearly the slowest of them: one more request could move it far.`);
  if (trace.tpot_basis === "least_first_chunk") notes.push("TPOT takes for the first chunk the fewest tokens that full later chunks leave over, as the server does not say; its curve is not drawn.");
  if (trace.tpot_basis === "assumed_one_token") notes.push("TPOT takes one token for the first chunk, as the server does not say.");
  if (plots.length && page.traces.coarse) notes.push(`The page holds many points: each curve is drawn through at most ${page.traces.quantiles} quantiles. The table is exact.`);
  if (trace.latency_reason) notes.push(`No curve: ${trace.latency_reason}.`);
  return part("Latency of its requests", make("div", { class: "plots" }, ...plots),
    rows.length ? textTable(["", "requests", ...page.traces.distribution.slice(1)], rows) : "", make("p", { class: "dim" }, notes.join(" ")));
}

function powerPart(trace, width, tone, mark) {
  const has = trace.power_w.length > 1, children = [];
  const notes = has ? [`Shaded: the steady-state window. ${page.traces.coarse ? "The page holds many points: at most" : "At most"} ${page.traces.power_values} values, each the mean over its share of the time.`]
    : [`No curve: ${trace.power_reason || "power was not recorded"}.`];
  if (has) children.push(powerPlot(trace, width, tone, mark));
  return part(`Power over time${trace.mark ? " (simulated)" : ""}`, make("div", { class: "plots" }, ...children, factList(energyFacts(trace))), make("p", { class: "dim" }, notes.join(" ")));
}

function acceptancePart(trace, width, tone, mark) {
  const { positions } = trace.acceptance, text = make("p", {}, acceptanceText(trace));
  if (!positions || !positions.length) return part("Acceptance", text);
  const table = textTable(["position", ...positions.map((_, i) => String(i + 1))], [["accepted", ...positions.map(percent)]]);
  return part("Acceptance by position", make("div", { class: "plots" }, positionPlot(positions, width, tone, mark), make("div", { class: "beside" }, text, table)));
}

function commandPart(trace) {
  const { commands } = trace.start;
  if (!commands.length) return part("Command lines", make("p", {}, "Not recorded: no process was started for this point."));
  const processes = commands.map(({ name, text }) => {
    const line = make("pre", { class: "command", tabindex: "0", "aria-label": `command line of ${name}` }, text);
    const status = make("span", { class: "dim", role: "status" });
    return make("div", { class: "process" }, make("div", { class: "tools" }, make("strong", {}, name),
      button("copy", () => copyText(text, line, status), { "aria-label": `copy the command line of ${name}` }), status), line);
  });
  return make("details", { class: "part commands" }, make("summary", {}, `Command lines (${commands.length} process${commands.length === 1 ? "" : "es"})`), ...processes);
}

function placePart(trace) {
  const { environment } = trace.start;
  const lines = environment.map(([name, value]) => `${name}=${value}`);
  return make("details", { class: "part place" }, make("summary", {}, "Where and when it ran"), factList(placeFacts(trace)),
    make("p", { class: "dim" }, lines.length ? "Environment; what looks secret was redacted when it was recorded:" : "Environment: nothing was set beside what the engine inherits."),
    lines.length ? make("pre", { class: "command", tabindex: "0", "aria-label": "environment" }, lines.join("\n")) : "");
}

/** Copies a text; where the browser refuses its clipboard, the text is selected for Ctrl+C. */
async function copyText(text, element, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(element);
    status.textContent = "selected: press Ctrl+C to copy";
  }
  setTimeout(() => { status.textContent = ""; }, 4000);
}
