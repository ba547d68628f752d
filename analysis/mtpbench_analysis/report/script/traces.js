// What lies behind the points that come from results folders; decoded when it is first looked at.
const decodedTraces = new Map();
const wordAt = (i) => (i === null || i === undefined ? null : page.words[i]);
const named = (names, values) => (values ? Object.fromEntries(names.map((name, i) => [name, values[i]])) : null);
const wordPairs = (pairs) => pairs.map(([name, value]) => [wordAt(name), wordAt(value)]);

function traceAt(number) {
  if (!decodedTraces.has(number)) {
    const { traces } = page, texts = new Set(traces.texts), clientTexts = new Set(traces.client_texts);
    const trace = named(traces.columns, traces.points[number]);
    for (const name of texts) trace[name] = wordAt(trace[name]);
    trace.number = number;
    trace.reasons = trace.reasons.map(wordAt);
    trace.errors = trace.errors.map(([code, count, example]) => ({ code: wordAt(code), count, example: wordAt(example) }));
    for (const name of ["ttft", "tpot", "e2el"]) trace[name] = named(traces.distribution, trace[name]);
    trace.ttft_s = trace.ttft_ms.map((value) => value / 1000);
    trace.tpot_s = trace.tpot_ms.map((value) => value / 1000);
    trace.energy = named(traces.energy, trace.energy);
    trace.power_reason = wordAt(trace.power_reason);
    trace.idle = trace.idle.map(([state, watts, reason]) => ({ state: wordAt(state), watts, reason: wordAt(reason) }));
    const [length, rate, positions, drafts, mode, source, reason] = trace.acceptance;
    trace.acceptance = { length, rate, positions, drafts, mode: wordAt(mode), source: wordAt(source), reason: wordAt(reason) };
    trace.client = named(traces.client, trace.client);
    if (trace.client) for (const name of clientTexts) trace.client[name] = wordAt(trace.client[name]);
    if (trace.gpus) trace.gpus = { hottest: trace.gpus[0], low: trace.gpus[1], high: trace.gpus[2], reasons: trace.gpus[3].map(wordAt) };
    trace.start = startAt(trace.start);
    decodedTraces.set(number, trace);
  }
  return decodedTraces.get(number);
}

function startAt(number) {
  const { traces } = page, [said, dirty, gpus, packages, environment, notes, hosts, commands] = traces.starts[number];
  return {
    ...named(traces.provenance, said.map(wordAt)), dirty, gpus: gpus.map(wordAt), packages: wordPairs(packages),
    environment: wordPairs(environment), notes: notes.map(wordAt), hosts: hosts.map(wordAt),
    commands: commands.map((i) => {
      const [name, ...words] = traces.commands[i].map(wordAt);
      return { name, text: words.join(" ") };
    }),
  };
}

/** Every run of the page, by arm: for a page without a comparison. */
function loneGroups() {
  const groups = new Map(), none = new Set(page.traces ? page.traces.without_figures : []);
  (page.traces ? page.traces.points : []).forEach((_, number) => {
    const { arm, recipe, reasons, repeat } = traceAt(number);
    const said = [recipe, repeat ? `repeat ${repeat}` : "", none.has(number) ? "no figures" : "", reasons.length ? "invalid" : ""];
    if (!groups.has(arm)) groups.set(arm, { label: arm, entries: [] });
    groups.get(arm).entries.push({ number, curve: null, point: null, text: said.filter((text) => text).join(", ") });
  });
  return [...groups.values()];
}

/** Every run of a comparison that has a trace, as a list shows it: [{label, entries: [{number, text, curve, point}]}]. */
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

/** Seconds as a reader sees them: in milliseconds below a tenth of a second. */
const duration = (v) => (!known(v) ? MISSING : Math.abs(v) < 0.1 ? `${significant(v * 1e3, 3)} ms` : `${significant(v, 4)} s`);
