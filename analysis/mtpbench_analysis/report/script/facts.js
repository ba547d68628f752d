// The facts of a point's panel: health of the run, energy, provenance, acceptance.
function healthFacts(trace) {
  const facts = trace.reasons.length ? trace.reasons.map((reason) => ["INVALID", reason]) : [["valid", "yes: no validity rule was broken"]];
  facts.push(["requests", `${fixed(trace.requests, 0)} measured, ${fixed(trace.failed, 0)} failed`]);
  for (const { code, count, example } of trace.errors) {
    facts.push([`failed: ${code}`, `${fixed(count, 0)}${example ? `; the first was told: ${example}` : ""}`]);
  }
  const share = (name, value, of) => facts.push([name, isKnown(value) ? `${percent(value)} of the ${of}` : "the server does not say"]);
  const [cached, reasoning] = trace.shares || [];
  share("from a prefix cache", cached, "prompt tokens");
  share("reasoning", reasoning, "output tokens");
  facts.push(["clock", { real: "real", scaled: "scaled: engine seconds, not wall seconds", virtual: "virtual: nothing ran in real time" }[trace.clock] || trace.clock]);
  facts.push(["steady window", trace.window ? windowText(trace) : "none"]);
  return trace.client ? [...facts, ...clientFacts(trace.client)] : [...facts, ["load client", trace.clock === "virtual" ? "none: the virtual clock has no client" : "nothing recorded of it"]];
}

const windowText = ({ window: [start, end, cut] }) => `${significant(start, 4)} to ${significant(end, 4)} s of the load, ${significant(end - start, 4)} s long${cut ? `; ${significant(cut, 3)} s before it had not settled` : ""}`;

function clientFacts(client) {
  const facts = [], absent = [];
  const add = (name, value, show) => (isKnown(value) ? facts.push([name, show(value)]) : absent.push(name));
  const pair = (name, kind) => add(name, client[`${kind}_p99_s`], (p99) => `${duration(client[`${kind}_p50_s`])} median, ${duration(p99)} p99`);
  if (client.transport) facts.push(["load client", `${client.transport}${client.workers === null ? "" : `, ${client.workers} process${client.workers === 1 ? "" : "es"}`}`]);
  if (client.stamps) facts.push(["arrival stamped by", client.stamps === "kernel" ? "the kernel: the reader's lag is in no latency" : "the client: its lag is in the latencies"]);
  add("CPU", client.cpu_share, (v) => `${percent(v)} of a core in its busiest process`);
  pair("send lag", "send_lag");
  pair("reader lag", "reader_lag");
  add("in flight", client.achieved_concurrency, (v) => `${significant(v, 4)} on average`);
  add("coalesced reads", client.coalesced_reads, (v) => `${fixed(v, 0)} of ${isKnown(client.reads) ? fixed(client.reads, 0) : MISSING}`);
  add("late starts", client.late_starts, (v) => fixed(v, 0));
  add("unsent", client.unsent, (v) => fixed(v, 0));
  add("clock drift", client.clock_drift_s, duration);
  add("clock step", client.clock_step_s, duration);
  add("reads stamped too early", client.misstamped_reads, (v) => fixed(v, 0));
  if (isKnown(client.host_clock_error_s)) facts.push(["clocks of the hosts", `within ${duration(client.host_clock_error_s)}`]);
  add("open files allowed", client.descriptor_limit, (v) => fixed(v, 0));
  add("local ports", client.local_ports, (v) => fixed(v, 0));
  add("peak memory", client.peak_rss_bytes, (v) => `${significant(v / 2 ** 20, 4)} MiB`);
  if (absent.length) facts.push(["not recorded", absent.join(", ")]);
  return facts;
}

const joules = (v) => `${fixed(v, v < 100 ? 2 : 0)} J`;

function energyFacts(trace) {
  const { energy: figures } = trace, what = trace.mark ? "simulated" : "metered", facts = [];
  const add = (name, value, show) => { if (isKnown(value)) facts.push([name, show(value)]); };
  add("energy in the window", figures.energy_j, (v) => `${joules(v)} of ${trace.power_gpus} GPUs, ${what}`);
  if (!isKnown(figures.energy_j)) facts.push(["energy in the window", `unknown: ${trace.power_reason || "no reason recorded"}`]);
  add("mean power", figures.mean_power_w_per_gpu, (v) => `${rate(v)} W per GPU`);
  add("J/token", figures.joules_per_token, energy);
  add("J/output token", figures.joules_per_output_token, energy);
  add("J/input token", figures.joules_per_input_token, energy);
  add("J/input token, prefill GPUs", figures.prefill_joules_per_input_token, energy);
  add("J/output token, decode GPUs", figures.decode_joules_per_output_token, energy);
  add("Grace CPUs", figures.grace_energy_j, joules);
  for (const { state: when, watts, reason } of trace.idle) {
    facts.push([when === "loaded" ? "idle, model loaded" : "idle, before the start", isKnown(watts) ? `${rate(watts)} W per GPU` : `unknown: ${reason || "no reason recorded"}`]);
  }
  if (trace.gpus) {
    const { hottest, low, high, reasons } = trace.gpus;
    add("hottest GPU", hottest, (v) => `${significant(v, 3)} °C`);
    add("power limit", low, (v) => (v === high ? `${rate(v)} W` : `${rate(v)} to ${rate(high)} W`));
    if (reasons.length) facts.push(["clocks held down by", reasons.join(", ")]);
  }
  facts.push(["read from", trace.power_source || "not recorded"]);
  return facts;
}

function placeFacts(trace) {
  const { start } = trace, facts = [], absent = [];
  const add = (name, value) => (value ? facts.push([name, value]) : absent.push(name));
  facts.push(["point", trace.id], ["begun", trace.started], ["ended", trace.finished]);
  add("start of its servers", start.server_start);
  add("host", start.host);
  add("client's hosts", start.hosts.join(", "));
  add("executor", start.executor);
  add("engine", start.engine_version);
  add("image", start.image);
  add("driver", start.driver);
  add("GPUs", start.gpus.join("; "));
  const tree = start.dirty ? ", with changes that no commit has" : "";
  facts.push(["mtpbench", `${start.harness_version}${start.git_revision ? ` at ${start.git_revision.slice(0, 12)}${tree}` : ""}`]);
  add("Python", [start.python, ...start.packages.map(([name, version]) => `${name} ${version}`)].join(", "));
  if (start.notes.length) facts.push(["notes", start.notes.join("; ")]);
  if (absent.length) facts.push(["not recorded", absent.join(", ")]);
  return facts;
}

function acceptanceText(trace) {
  const { length, rate: share, drafts, mode, source, reason } = trace.acceptance;
  if (mode === "off") return `Speculation is off${reason === "off_but_drafting" ? " in the sweep, but the engine drafts tokens" : ": nothing is drafted"}.`;
  if (!isKnown(length)) return `Acceptance is unknown: ${reason || "no reason recorded"}.`;
  const pinned = mode === "golden" ? " It is pinned to a fixed mean, not measured on these prompts." : "";
  return `${fixed(length, 2)} tokens per verification step, ${isKnown(share) ? `${percent(share)} of drafted tokens accepted` : "the share of drafts unknown"}`
    + `${isKnown(drafts) ? `, ${fixed(drafts, 0)} steps` : ""}; from ${source}.${pinned}`;
}
