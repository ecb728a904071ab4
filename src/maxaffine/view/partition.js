'use strict';
// ---- the partition: typed arrays, and what follows from them ----
const TYPES = { vertices: Float64Array, centres: Float64Array, areas: Float64Array, boundary: Float64Array,
  A: Float32Array, b: Float32Array, colours: Uint8Array, codes: Uint8Array };
const P = {};
for (const [name, text] of Object.entries(DATA.arrays)) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  P[name] = new (TYPES[name] || Int32Array)(bytes.buffer);
}
const F = P.areas.length, E = P.edges.length / 2, K = DATA.outputs.length, single = DATA.total === 1;
const $ = id => document.getElementById(id);
const xs = DATA.corners.map(c => c[0]), ys = DATA.corners.map(c => c[1]);
const BOX = { left: Math.min(...xs), right: Math.max(...xs), bottom: Math.min(...ys), top: Math.max(...ys) };
const incident = (() => {                       // the edges of each cell, as offsets and entries
  const offsets = new Int32Array(F + 1);
  for (const c of P.neighbours) if (c >= 0) offsets[c + 1]++;
  for (let c = 0; c < F; c++) offsets[c + 1] += offsets[c];
  const place = offsets.slice(), entries = new Int32Array(offsets[F]);
  for (let k = 0; k < 2 * E; k++) if (P.neighbours[k] >= 0) entries[place[P.neighbours[k]]++] = k >> 1;
  return { offsets, entries };
})();
const value = (c, k, s, t) => P.b[c * K + k] + P.A[2 * (c * K + k)] * s + P.A[2 * (c * K + k) + 1] * t;
const best = Uint32Array.from({ length: F }, (_, c) => {
  const s = P.centres[2 * c], t = P.centres[2 * c + 1];
  if (single) return value(c, 0, s, t) > 0 ? 1 : 0;
  let top = 0;
  for (let k = 1; k < K; k++) if (value(c, k, s, t) > value(c, top, s, t)) top = k;
  return top;
});
function slope(c) {                              // the largest singular value of A (K, 2)
  let ss = 0, st = 0, tt = 0;
  for (let k = 2 * c * K; k < 2 * (c + 1) * K; k += 2) { ss += P.A[k] ** 2; st += P.A[k] * P.A[k + 1]; tt += P.A[k + 1] ** 2; }
  return Math.sqrt((ss + tt + Math.hypot(ss - tt, 2 * st)) / 2);
}

// ---- which cell is at (s, t): a grid of lists, then the test with the cell's sides ----
const grid = (() => {
  const n = Math.max(1, Math.ceil(Math.sqrt(F)));
  const column = s => Math.min(n - 1, Math.max(0, Math.floor(n * (s - BOX.left) / (BOX.right - BOX.left))));
  const row = t => Math.min(n - 1, Math.max(0, Math.floor(n * (t - BOX.bottom) / (BOX.top - BOX.bottom))));
  const bounds = new Float64Array(4 * F), offsets = new Int32Array(n * n + 1);
  for (let c = 0; c < F; c++) {
    let l = Infinity, r = -Infinity, d = Infinity, u = -Infinity;
    for (let i = P.offsets[c]; i < P.offsets[c + 1]; i++) {
      const s = P.vertices[2 * P.corners[i]], t = P.vertices[2 * P.corners[i] + 1];
      l = Math.min(l, s); r = Math.max(r, s); d = Math.min(d, t); u = Math.max(u, t);
    }
    bounds.set([l, r, d, u], 4 * c);
  }
  const each = (c, f) => {
    for (let y = row(bounds[4 * c + 2]); y <= row(bounds[4 * c + 3]); y++)
      for (let x = column(bounds[4 * c]); x <= column(bounds[4 * c + 1]); x++) f(y * n + x);
  };
  for (let c = 0; c < F; c++) each(c, k => offsets[k + 1]++);
  for (let k = 0; k < n * n; k++) offsets[k + 1] += offsets[k];
  const place = offsets.slice(), cells = new Int32Array(offsets[n * n]);
  for (let c = 0; c < F; c++) each(c, k => { cells[place[k]++] = c; });
  return { at: (s, t) => row(t) * n + column(s), offsets, cells, bounds };
})();
function holds(c, s, t) {
  const last = P.offsets[c + 1];
  for (let i = P.offsets[c]; i < last; i++) {
    const a = 2 * P.corners[i], b = 2 * P.corners[i + 1 < last ? i + 1 : P.offsets[c]];
    if ((P.vertices[b] - P.vertices[a]) * (t - P.vertices[a + 1]) < (P.vertices[b + 1] - P.vertices[a + 1]) * (s - P.vertices[a]))
      return false;
  }
  return true;
}
function cellAt(s, t) {
  if (s < BOX.left || s > BOX.right || t < BOX.bottom || t > BOX.top) return -1;
  const k = grid.at(s, t);
  for (let i = grid.offsets[k]; i < grid.offsets[k + 1]; i++) if (holds(grid.cells[i], s, t)) return grid.cells[i];
  return -1;
}
