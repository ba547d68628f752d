// The card of a point: of the one under the pointer or finger, or of the one that the arrow keys have reached.
function showCard(entry) {
  const { card, holder } = parts, { point, curve, arm, element } = entry;
  const list = make("dl");
  for (const [name, value] of cardFacts(point, curve, shownComparison)) {
    list.append(make("dt", { class: name === "INVALID" ? "bad" : null }, name), make("dd", {}, value));
  }
  const heading = make("p", { class: arm ? `name k${toneOf(arm)}` : "name" }, nameOf(entry), shownComparison.mark ? make("strong", { class: "mark" }, ` ${shownComparison.mark}`) : "");
  card.replaceChildren(heading, list);
  card.hidden = false;
  const box = holder.getBoundingClientRect(), dot = element.getBoundingClientRect();
  const x = dot.left + dot.width / 2 - box.left, y = dot.top + dot.height / 2 - box.top;
  const small = box.width < 560;
  card.classList.toggle("below", small);
  if (!small) {
    const onRight = x + 16 + card.offsetWidth <= box.width || x < box.width / 2;
    card.style.left = `${onRight ? x + 16 : x - 16 - card.offsetWidth}px`;
    card.style.top = `${Math.max(0, Math.min(y - 40, Math.max(0, box.height - card.offsetHeight)))}px`;
  }
  for (const drawn of parts.points) drawn.element.classList.toggle("on", drawn === entry);
}

function hideCard() {
  parts.card.hidden = true;
  for (const drawn of parts.points) drawn.element.classList.remove("on");
}

function focusOn(index) {
  parts.points.forEach(({ element }, i) => element.setAttribute("tabindex", i === index ? "0" : "-1"));
  parts.points[index].element.focus();
}

function moveFocus(event) {
  const at = parts.points.findIndex(({ element }) => element === document.activeElement);
  if (event.key === "Escape") { hideCard(); return; }
  if (at < 0) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    lookCloser(parts.points[at], true);
    return;
  }
  const last = parts.points.length - 1, curve = parts.points[at].curve;
  const other = (step) => {
    const curves = [...new Set(parts.points.map((drawn) => drawn.curve))];
    const next = curves[(curves.indexOf(curve) + step + curves.length) % curves.length];
    const distance = (drawn) => Math.abs(drawn.point.x - parts.points[at].point.x);
    const candidates = parts.points.filter((drawn) => drawn.curve === next);
    return parts.points.indexOf(candidates.reduce((best, drawn) => (distance(drawn) < distance(best) ? drawn : best)));
  };
  const moves = {
    ArrowRight: () => Math.min(last, at + 1), ArrowLeft: () => Math.max(0, at - 1), Home: () => 0, End: () => last,
    ArrowUp: () => other(-1), ArrowDown: () => other(1),
  };
  if (!moves[event.key]) return;
  event.preventDefault();
  focusOn(moves[event.key]());
}

function listenToPoint(entry) {
  const { element } = entry;
  element.addEventListener("pointerenter", () => showCard(entry));
  element.addEventListener("click", () => {
    focusOn(parts.points.indexOf(entry));
    lookCloser(entry, false);
  });
  element.addEventListener("focus", () => {
    showCard(entry);
    parts.fact.textContent = pointFacts(entry.point, entry.curve, shownComparison, state).map(([name, value]) => `${name}: ${value}`).join("; ");
  });
  element.addEventListener("blur", hideCard);
}
