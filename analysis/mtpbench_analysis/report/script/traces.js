// The traces of points from results folders; a trace is decoded when it is first needed.
const decodedTraces = new Map();
const textAt = (i) => (i === null || i === undefined ? null : page.words[i]);
const named = (names, values) => (values ? Object.fromEntries(names.map((name, i) => [name, values[i]])) : null);
const textPairs = (pairs) => pairs.map(([name, value]) => [textAt(name), textAt(value)]);

function traceAt(number) {
  if (!decodedTraces.has(number)) {
    const { traces } = page, texts = new Set(traces.texts), clientTexts = new Set(traces.client_texts);
    const trace = named(traces.columns, traces.points[number]);
    for (const name of texts) trace[name] = textAt(trace[name]);
    trace.number = number;
    trace.reasons = trace.reasons.map(textAt);
    trace.errors = trace.errors.map(([code, count, example]) => ({ code: textAt(code), count, example: textAt(example) }));
    for (const name of ["ttft", "tpot", "e2el"]) trace[name] = named(traces.distribution, trace[name]);
    trace.ttft_s = trace.ttft_ms.map((value) => value / 1000);
    trace.tpot_s = trace.tpot_ms.map((value) => value / 1000);
    trace.energy = named(traces.energy, trace.energy);
    trace.power_reason = textAt(trace.power_reason);
    trace.idle = trace.idle.map(([state, watts, reason]) => ({ state: textAt(state), watts, reason: textAt(reason) }));
    const [length, rate, positions, drafts, mode, source, reason] = trace.acceptance;
    trace.acceptance = { length, rate, positions, drafts, mode: textAt(mode), source: textAt(source), reason: textAt(reason) };
    trace.client = named(traces.client, trace.client);
    if (trace.client) for (const name of clientTexts) trace.client[name] = textAt(trace.client[name]);
    if (trace.gpus) trace.gpus = { hottest: trace.gpus[0], low: trace.gpus[1], high: trace.gpus[2], reasons: trace.gpus[3].map(textAt) };
    trace.start = startAt(trace.start);
    decodedTraces.set(number, trace);
  }
  return decodedTraces.get(number);
}

function startAt(number) {
  const { traces } = page, [provenance, dirty, gpus, packages, environment, notes, hosts, commands] = traces.starts[number];
  return {
    ...named(traces.provenance, provenance.map(textAt)), dirty, gpus: gpus.map(textAt), packages: textPairs(packages),
    environment: textPairs(environment), notes: notes.map(textAt), hosts: hosts.map(textAt),
    commands: commands.map((i) => {
      const [name, ...args] = traces.commands[i].map(textAt);
      return { name, text: args.join(" ") };
    }),
  };
}

/** Returns all runs of a page without a comparison, by arm. */
function loneGroups() {
  const groups = new Map(), none = new Set(page.traces ? page.traces.without_figures : []);
  (page.traces ? page.traces.points : []).forEach((_, number) => {
    const { arm, recipe, reasons, repeat } = traceAt(number);
    const texts = [recipe, repeat ? `repeat ${repeat}` : "", none.has(number) ? "no figures" : "", reasons.length ? "invalid" : ""];
    if (!groups.has(arm)) groups.set(arm, { label: arm, entries: [] });
    groups.get(arm).entries.push({ number, curve: null, point: null, text: texts.filter((text) => text).join(", ") });
  });
  return [...groups.values()];
}

/** Returns the runs of a comparison with a trace, for a list: [{label, entries: [{number, text, curve, point}]}]. */
function traceGroups(comparison) {
  if (!comparison) return loneGroups();
  if (!page.traces) return [];
  const groups = comparison.curves.map((curve) => ({
    label: curve.label,
    entries: curve.points.flatMap((point) => point.traces.map((number, i) => ({
      number, curve, point, text: point.recipe + (point.traces.length > 1 ? `, run ${i + 1} of ${point.traces.length}` : ""),
    }))),
  }));
  const plain = (number) => ({ number, curve: null, point: null, text: `${traceAt(number).arm}, ${traceAt(number).recipe}` });
  groups.push({ label: "invalid", entries: comparison.invalid.flatMap((point) => point.traces.map((number) => ({ ...plain(number), point }))) });
  groups.push({ label: "without figures", entries: page.traces.without_figures.map(plain) });
  return groups.filter((group) => group.entries.length);
}

/** Returns a duration as text: in milliseconds below a tenth of a second. */
const duration = (v) => (!isKnown(v) ? MISSING : Math.abs(v) < 0.1 ? `${significant(v * 1e3, 3)} ms` : `${significant(v, 4)} s`);
