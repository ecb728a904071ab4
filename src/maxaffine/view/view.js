// ---- colours ----
const dark = matchMedia('(prefers-color-scheme: dark)');
const css = ([r, g, b]) => `rgb(${r},${g},${b})`;
const palette = () => DATA.palette[dark.matches ? 'dark' : 'light'];
const STATISTICS = { 'norm of the slope': slope, 'area': c => P.areas[c], 'number of sides': c => P.offsets[c + 1] - P.offsets[c] };
const share = new Float64Array(Math.max(K, 2));  // the area on which each output is the largest
const className = k => single ? (k ? 'above 0' : 'below 0') : `output ${DATA.outputs[k]}`;
const classColour = k => css(palette().classes[rank.get(k) % palette().classes.length][0]);
let groups = new Map();                          // colour -> its cells
let pieces = new Map();                          // colour -> parts of cells that the boundary cuts: [cell, polygon]
// A cell that the decision boundary cuts: for each output its part, the cell cut off by f_k = f_j for every other j.
const area = p => p.reduce((sum, [s, t], i) => { const [u, v] = p[(i + 1) % p.length]; return sum + (s * v - u * t) / 2; }, 0);
function cutCell(c) {
  const corners = [];
  for (let i = P.offsets[c]; i < P.offsets[c + 1]; i++) corners.push([P.vertices[2 * P.corners[i]], P.vertices[2 * P.corners[i] + 1]]);
  const level = (k, p) => single ? (k ? 1 : -1) * value(c, 0, ...p) : value(c, k, ...p);
  const rivals = single ? [0, 1] : [...Array(K).keys()].filter(k => k === best[c] || corners.some(p => level(k, p) > level(best[c], p)));
  if (rivals.length < 2 || (single && rivals.some(k => corners.every(p => level(k, p) >= 0)))) return [];
  return rivals.map(k => {
    let part = corners;
    for (const j of rivals) if (j !== k) {
      const ahead = p => single ? level(k, p) : level(k, p) - level(j, p);
      part = part.flatMap((p, i) => {
        const q = part[(i + 1) % part.length], a = ahead(p), b = ahead(q), kept = a >= 0 ? [p] : [];
        return a * b < 0 ? [...kept, [p[0] + a / (a - b) * (q[0] - p[0]), p[1] + a / (a - b) * (q[1] - p[1])]] : kept;
      });
    }
    return [k, part];
  }).filter(([, part]) => part.length > 2);
}
const parts = [];                                // [output, polygon, cell]
for (let c = 0; c < F; c++) {
  const cut = cutCell(c);
  if (!cut.length) share[best[c]] += P.areas[c];
  for (const [k, part] of cut) { parts.push([k, part, c]); share[k] += area(part); }
}
const shares = [...share.keys()].filter(k => share[k] > 0).sort((a, b) => share[b] - share[a]);
const rank = new Map(shares.map((k, i) => [k, share.length === 2 ? k : i]));
function paintBy(mode) {
  const colour = new Array(F), legend = $('legend'), tint = (k, c) => css(palette().classes[rank.get(k) % palette().classes.length][P.colours[c]]);
  legend.hidden = !(mode in STATISTICS);
  if (mode === 'cells') for (let c = 0; c < F; c++) colour[c] = css(palette().tints[P.colours[c]]);
  else if (mode === 'class') for (let c = 0; c < F; c++) colour[c] = tint(best[c], c);
  else {
    const values = Float64Array.from({ length: F }, (_, c) => STATISTICS[mode](c)), sorted = values.slice().sort();
    const low = sorted[Math.floor(0.01 * F)], high = sorted[Math.min(F - 1, Math.floor(0.99 * F))];
    const log = low > 0 && high / low > 100, f = log ? Math.log : v => v, n = DATA.ramp.length;
    const span = f(high) - f(low) || 1;
    for (let c = 0; c < F; c++) {
      const share = low === high ? 0.5 : (f(values[c]) - f(low)) / span;
      colour[c] = css(DATA.ramp[Math.min(n - 1, Math.max(0, Math.floor(n * share)))]);
    }
    $('low').textContent = number(low); $('high').textContent = number(high) + (log ? ' (log)' : '');
    $('scale').style.background = `linear-gradient(90deg, ${DATA.ramp.map(css).join(',')})`;
  }
  pieces = new Map();
  if (mode === 'class') for (const [k, part, c] of parts) {
    if (!pieces.has(tint(k, c))) pieces.set(tint(k, c), []);
    pieces.get(tint(k, c)).push([c, part]);
  }
  groups = new Map();
  for (let c = 0; c < F; c++) groups.has(colour[c]) ? groups.get(colour[c]).push(c) : groups.set(colour[c], [c]);
}

// ---- drawing: the cells into a picture that is moved while one drags, then drawn anew ----
const canvas = $('canvas'), ctx = canvas.getContext('2d'), layer = document.createElement('canvas');
let view = { s: 0, t: 0, k: 1 }, drawn = null, dpr = 1, timer = 0, asked = false, cost = 0;
let hovered = -1, pinned = -1, pointer = null;
const X = (s, v) => layer.width / 2 + (s - v.s) * v.k, Y = (t, v) => layer.height / 2 - (t - v.t) * v.k * DATA.aspect;
const S = x => view.s + (x * dpr - layer.width / 2) / view.k, T = y => view.t - (y * dpr - layer.height / 2) / view.k / DATA.aspect;
const fitted = () => Math.min(layer.width / (BOX.right - BOX.left), layer.height / (BOX.top - BOX.bottom) / DATA.aspect);
function fit() {
  view = { s: (BOX.left + BOX.right) / 2, t: (BOX.bottom + BOX.top) / 2, k: 0.96 * fitted() };
}
function outline(g, c, v) {
  for (let i = P.offsets[c]; i < P.offsets[c + 1]; i++) {
    const p = 2 * P.corners[i], x = X(P.vertices[p], v), y = Y(P.vertices[p + 1], v);
    i === P.offsets[c] ? g.moveTo(x, y) : g.lineTo(x, y);
  }
  g.closePath();
}
// Several polygons as one path: Chromium leaves corners out of some single convex polygons with a very short side.
function fillMany(g, list, draw) {
  for (let i = 0; i < list.length; i += 40) { g.beginPath(); list.slice(i, i + 40).forEach(draw); g.fill(); }
}
function polygon(g, v) {
  DATA.corners.forEach(([s, t], i) => i ? g.lineTo(X(s, v), Y(t, v)) : g.moveTo(X(s, v), Y(t, v)));
  g.closePath();
}
function render() {
  const start = performance.now(), g = layer.getContext('2d'), v = { ...view };
  g.clearRect(0, 0, layer.width, layer.height);
  const l = S(0), r = S(layer.width / dpr), d = T(layer.height / dpr), u = T(0), B = grid.bounds;
  const seen = c => B[4 * c] < r && B[4 * c + 1] > l && B[4 * c + 2] < u && B[4 * c + 3] > d;
  g.beginPath(); polygon(g, v); g.fillStyle = groups.keys().next().value; g.fill();   // no light seams between cells
  for (const [colour, cells] of groups) {
    g.fillStyle = colour;
    fillMany(g, cells.filter(seen), c => outline(g, c, v));
  }
  for (const [colour, list] of pieces) {
    g.fillStyle = colour;
    fillMany(g, list.filter(([c]) => seen(c)), ([, part]) => {
      part.forEach(([s, t], i) => i ? g.lineTo(X(s, v), Y(t, v)) : g.moveTo(X(s, v), Y(t, v)));
      g.closePath();
    });
  }
  if ($('edges').checked) drawEdges(g, v, seen);
  if ($('boundary').checked) drawBoundary(g, v);
  g.beginPath(); polygon(g, v); g.lineWidth = dpr; g.strokeStyle = dark.matches ? '#a8a59d' : '#1d1c1a'; g.stroke();
  drawn = v; cost = performance.now() - start;
}
function drawEdges(g, v, seen) {                 // fainter beside small cells, none beside the smallest
  const bins = [[], [], []];
  for (let e = 0; e < E; e++) {
    const a = P.neighbours[2 * e], b = P.neighbours[2 * e + 1];
    if (a < 0 || b < 0 || !seen(a)) continue;
    const size = Math.sqrt(Math.min(P.areas[a], P.areas[b]) * DATA.aspect) * v.k / dpr;
    if (size > 4) bins[size > 40 ? 2 : size > 12 ? 1 : 0].push(e);
  }
  g.strokeStyle = dark.matches ? '#08090a' : '#1d1c1a';
  bins.forEach((edges, i) => {
    g.beginPath();
    for (const e of edges) {
      const p = 2 * P.edges[2 * e], q = 2 * P.edges[2 * e + 1];
      g.moveTo(X(P.vertices[p], v), Y(P.vertices[p + 1], v)); g.lineTo(X(P.vertices[q], v), Y(P.vertices[q + 1], v));
    }
    g.lineWidth = dpr * [0.4, 0.6, 0.9][i]; g.globalAlpha = [0.3, 0.45, 0.6][i]; g.stroke();
  });
  g.globalAlpha = 1;
}
function drawBoundary(g, v) {
  g.lineCap = 'round';
  g.beginPath();
  for (let i = 0; i < P.boundary.length; i += 4) {
    g.moveTo(X(P.boundary[i], v), Y(P.boundary[i + 1], v)); g.lineTo(X(P.boundary[i + 2], v), Y(P.boundary[i + 3], v));
  }
  const [rim, line] = dark.matches ? ['#08090a', '#ffffff'] : ['#ffffff', '#1d1c1a'];
  g.lineWidth = 4.5 * dpr; g.strokeStyle = rim; g.stroke();
  g.lineWidth = 2.2 * dpr; g.strokeStyle = line; g.stroke();
}
function frame() {
  asked = false;
  if (!drawn || cost < 14) render();
  const k = view.k / drawn.k, x = X(drawn.s, view) - k * layer.width / 2, y = Y(drawn.t, view) - k * layer.height / 2;
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.clearRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(layer, x, y, k * layer.width, k * layer.height);
  for (const [c, wide] of [[hovered, 2.5], [pinned, 4]]) if (c >= 0) {
    ctx.beginPath(); outline(ctx, c, view); ctx.lineJoin = 'round';
    ctx.lineWidth = (wide + 2) * dpr; ctx.strokeStyle = dark.matches ? '#08090a' : '#ffffff'; ctx.stroke();
    ctx.lineWidth = wide * dpr; ctx.strokeStyle = dark.matches ? '#66d9e8' : '#0b6577'; ctx.stroke();
  }
  drawPoints();
  drawScales();
}
function drawScales() {                          // numbers of s along the lower edge of the picture, of t along its left
  const round = raw => { const p = 10 ** Math.floor(Math.log10(raw)); return p * [1, 2, 5, 10].find(m => p * m >= raw); };
  const [ink, halo] = dark.matches ? ['#eceae4', '#15171acc'] : ['#1d1c1a', '#fbfaf6cc'];
  const w = layer.width, h = layer.height, digits = step => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const write = (text, x, y) => { ctx.strokeText(text, x, y); ctx.fillText(text, x, y); };
  ctx.font = `${11.5 * dpr}px system-ui, sans-serif`; ctx.fillStyle = ink; ctx.strokeStyle = halo; ctx.lineWidth = 4 * dpr;
  ctx.lineJoin = 'round'; ctx.textBaseline = 'alphabetic';
  for (const [name, low, high, place] of [['s', S(0), S(w / dpr), v => X(v, view)], ['t', T(h / dpr), T(0), v => Y(v, view)]]) {
    const step = round(110 * dpr * (high - low) / (name === 's' ? w : h));
    for (let i = Math.ceil(low / step); i * step <= high; i++) {
      const at = place(i * step), text = (i * step).toFixed(Math.min(digits(step), 12)).replace('-', '−');
      if (at < 24 * dpr || at > (name === 's' ? w : h) - 24 * dpr) continue;
      ctx.textAlign = name === 's' ? 'center' : 'left';
      name === 's' ? write(`s = ${text}`, at, h - 8 * dpr) : write(`t = ${text}`, 8 * dpr, at - 4 * dpr);
      ctx.fillRect(...(name === 's' ? [at, h - 5 * dpr, dpr, 5 * dpr] : [0, at, 5 * dpr, dpr]));
    }
  }
  ctx.textAlign = 'left';
}
function drawPoints() {
  ctx.font = `600 ${13 * dpr}px system-ui, sans-serif`; ctx.textBaseline = 'middle'; ctx.textAlign = 'left';
  for (const { at: [s, t], text } of DATA.points) {
    const x = X(s, view), y = Y(t, view), wide = text ? ctx.measureText(text).width + 10 * dpr : 0;
    ctx.beginPath(); ctx.arc(x, y, 5 * dpr, 0, 7); ctx.fillStyle = '#ffffff'; ctx.fill();
    ctx.lineWidth = 1.6 * dpr; ctx.strokeStyle = '#1d1c1a'; ctx.stroke();
    if (!text) continue;
    const left = x + 9 * dpr + wide > layer.width && x > wide ? x - 9 * dpr - wide : x + 9 * dpr;
    ctx.beginPath(); ctx.roundRect(left, y - 19 * dpr, wide, 20 * dpr, 5 * dpr); ctx.fillStyle = '#ffffff'; ctx.fill(); ctx.stroke();
    ctx.fillStyle = '#1d1c1a'; ctx.fillText(text, left + 5 * dpr, y - 8.5 * dpr);
  }
}
function change(late = true) {                   // show the picture moved at once, draw it anew when it rests
  if (!asked) { asked = true; requestAnimationFrame(frame); }
  clearTimeout(timer);
  if (late) timer = setTimeout(() => { render(); frame(); }, 90);
}
function redraw() { drawn = null; change(false); }
function resize() {
  const box = $('stage').getBoundingClientRect(), first = !drawn, centred = drawn && Math.abs(view.k / fitted() - 0.96) < 1e-6;
  dpr = Math.min(window.devicePixelRatio || 1, 2);
  layer.width = canvas.width = Math.max(1, Math.round(box.width * dpr));
  layer.height = canvas.height = Math.max(1, Math.round(box.height * dpr));
  if (first || centred) fit();
  drawn = null; frame();
}

// ---- what is said about a cell ----
function number(v) {
  const size = Math.abs(v);
  return (v === 0 ? '0' : size >= 1e4 || size < 1e-3 ? v.toExponential(1) : v.toPrecision(3)).replace(/-/g, '−');
}
const element = (tag, text, className) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
};
function show() {
  const c = pinned >= 0 ? pinned : hovered, info = $('info');
  if (c < 0) {
    info.replaceChildren(element('h2', 'No cell yet'), element('p', matchMedia('(hover: hover)').matches
      ? 'Move the pointer over the cells; click to hold one. Drag to move, turn the wheel to zoom.'
      : 'Tap a cell. Drag to move, pinch to zoom.', 'soft'),
    element('p', 'In each cell the network is one affine map: f = b + A (s, t).', 'soft'), ...shareTable());
    return;
  }
  const code = [...P.codes.subarray(4 * c, 4 * c + 4)].map(v => v.toString(16).padStart(2, '0')).join('');
  const head = element('h2', `Cell ${c.toLocaleString('en')}`), line = element('p', 'code ');
  line.append(element('span', code, 'code'));
  const at = [P.centres[2 * c], P.centres[2 * c + 1]], use = pointer && pinned < 0 ? pointer : at;
  const facts = `${P.offsets[c + 1] - P.offsets[c]} sides, area ${number(P.areas[c])}, around (${at.map(number).join(', ')})`;
  info.replaceChildren(head, line, element('p', facts, 'soft'), element('h3', 'f = b + A (s, t), with f at ' +
    (use === at ? 'the centre' : 'the pointer')), mapTable(c, use), element('h3', 'Neighbours, and the units that change'), neighbourList(c));
}
function shareTable() {
  if (shares.length < 2) return [];
  const list = element('ul'), whole = shares.reduce((sum, k) => sum + share[k], 0);
  for (const k of shares) {
    const row = element('li'), name = element('b'), dot = element('i', '', 'swatch');
    dot.style.background = classColour(k); name.append(dot, className(k));
    row.append(name, element('span', `${number(100 * share[k] / whole)} %`)); list.append(row);
  }
  return [element('h3', single ? 'Sign of f, by area' : 'Largest output, by area'), list];
}
function mapTable(c, [s, t]) {
  const table = element('table'), head = element('thead'), body = element('tbody'), names = element('tr');
  for (const name of ['output', 'b', 'A, s', 'A, t', 'f']) names.append(element('th', name));
  const order = [...Array(K).keys()].sort((i, j) => value(c, j, s, t) - value(c, i, s, t));
  order.forEach((k, i) => {
    const row = element('tr', undefined, i === 0 && K > 1 ? 'top' : ''), name = element('th');
    if (!single && rank.has(k)) { const dot = element('i', '', 'swatch'); dot.style.background = classColour(k); name.append(dot); }
    name.append(String(DATA.outputs[k])); row.append(name);
    const m = c * K + k;
    for (const v of [P.b[m], P.A[2 * m], P.A[2 * m + 1], value(c, k, s, t)]) row.append(element('td', number(v)));
    body.append(row);
  });
  head.append(names); table.append(head, body);
  if (K < DATA.total) table.append(element('caption', `${K} of ${DATA.total} outputs`, 'soft'));
  return table;
}
function neighbourList(c) {
  const list = element('ul');
  for (let i = incident.offsets[c]; i < incident.offsets[c + 1]; i++) {
    const e = incident.entries[i], other = P.neighbours[2 * e] === c ? P.neighbours[2 * e + 1] : P.neighbours[2 * e];
    const row = element('li'), units = [];
    for (let k = P.switches[e]; k < P.switches[e + 1]; k++) units.push(`${DATA.operators[P.operator[k]]}[${P.unit[k]}]`);
    if (other < 0) row.append('outside');
    else {
      const go = element('button', other.toLocaleString('en'));
      go.onclick = () => { pinned = other; hovered = -1; show(); change(false); };
      row.append(go);
    }
    row.append(element('span', other < 0 ? 'border' : units.slice(0, 6).join(', ') + (units.length > 6 ? ` and ${units.length - 6} more` : '')));
    list.append(row);
  }
  return list;
}

// ---- pointer, wheel, fingers, keys ----
const fingers = new Map();
let moved = 0, spread = 0;
const zoomAt = (x, y, factor) => {
  const s = S(x), t = T(y);
  view.k = Math.min(Math.max(view.k * factor, 0.4 * fitted()), 1e7 * fitted());
  view.s = s - (x * dpr - layer.width / 2) / view.k; view.t = t + (y * dpr - layer.height / 2) / view.k / DATA.aspect;
  change();
};
const local = e => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
canvas.onpointerdown = e => {
  canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, local(e)); moved = fingers.size > 1 ? 99 : 0; spread = 0;
};
canvas.onpointermove = e => {
  const [x, y] = local(e), before = fingers.get(e.pointerId);
  if (!before) {
    pointer = [S(x), T(y)];
    const c = cellAt(...pointer);
    if (pinned < 0) { if (c !== hovered) { hovered = c; change(false); } show(); }
    return;
  }
  moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
  fingers.set(e.pointerId, [x, y]);
  if (fingers.size === 1 && moved > 4) {
    view.s -= (x - before[0]) * dpr / view.k; view.t += (y - before[1]) * dpr / view.k / DATA.aspect; change();
  } else if (fingers.size === 2) {
    const [a, b] = [...fingers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
    if (spread) zoomAt((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, now / spread);
    spread = now;
  }
};
canvas.onpointerup = canvas.onpointercancel = e => {
  const [x, y] = local(e);
  if (fingers.delete(e.pointerId) && moved <= 4 && e.type === 'pointerup') {
    const c = cellAt(S(x), T(y));
    pinned = c === pinned ? -1 : c; hovered = pinned < 0 ? c : -1; show(); change(false);
  }
  spread = 0;
};
canvas.onpointerleave = () => { pointer = null; if (pinned < 0 && hovered >= 0) { hovered = -1; show(); change(false); } };
canvas.addEventListener('wheel', e => { e.preventDefault(); zoomAt(...local(e), Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016))); },
  { passive: false });
const middle = () => [layer.width / 2 / dpr, layer.height / 2 / dpr];
const KEYS = {
  '+': () => zoomAt(...middle(), 1.5), '=': () => zoomAt(...middle(), 1.5), '-': () => zoomAt(...middle(), 1 / 1.5),
  '0': () => { fit(); change(); }, 'Escape': () => { pinned = -1; show(); change(false); },
  'ArrowLeft': () => { view.s -= 60 * dpr / view.k; change(); }, 'ArrowRight': () => { view.s += 60 * dpr / view.k; change(); },
  'ArrowUp': () => { view.t += 60 * dpr / view.k / DATA.aspect; change(); },
  'ArrowDown': () => { view.t -= 60 * dpr / view.k / DATA.aspect; change(); },
};
canvas.onkeydown = e => { if (KEYS[e.key] && !e.ctrlKey && !e.metaKey) { e.preventDefault(); KEYS[e.key](); } };
$('in').onclick = KEYS['+']; $('out').onclick = KEYS['-']; $('fit').onclick = KEYS['0'];

// ---- start ----
const many = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;
$('counts').textContent = `${many(F, 'cell')}, ${many(P.vertices.length / 2, 'vertice').replace(/vertice$/, 'vertex')}, ${many(E, 'edge')}`;
if (single) $('boundary-name').textContent = 'where f = 0';
for (const name of ['class', 'cells', ...Object.keys(STATISTICS)])
  $('colour').append(new Option(name === 'class' ? (single ? 'sign of f' : 'largest output') : name === 'cells' ? 'cell by cell' : name, name));
$('colour').value = shares.length > 1 ? 'class' : 'cells';
$('colour').onchange = () => { paintBy($('colour').value); redraw(); };
$('edges').onchange = $('boundary').onchange = redraw;
dark.addEventListener('change', () => { paintBy($('colour').value); show(); redraw(); });
new ResizeObserver(resize).observe($('stage'));
paintBy($('colour').value); show(); resize();
