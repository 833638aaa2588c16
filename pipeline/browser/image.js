// An image: the runs side by side, each a stack of layers, with a sidebar of controls.

import { $, FILTER, ask, button, differences, failed, gridURL, h, imageURL, keysButton, link, notice, only, open, page, percent, query, tip, update } from './base.js';
import { Marks, markKeys } from './marks.js';

const imageKeys = (all) => [['← →', 'previous, next image in this order and filter'], ['Home End', 'first, last image'],
  ['↑ ↓', 'the previous, next layer, alone'], [`${all.layers[0].letter} … ${all.layers.at(-1).letter}`, 'show or hide the layer with this key'],
  ['space', 'image without layers'], ['c', 'compare: side by side, swipe, flicker'], ['+ − wheel drag', 'zoom and move; double click: whole image'], ...markKeys, ['g, Esc', 'back to the grid']];
const MODES = { '': 'side by side', swipe: 'swipe', flicker: 'flicker' };
const GROUPS = { cams: ['threshold'], walk: ['beta', 'steps'], labels: ['background'] };
const FOLLOWS = { cams: ['cams'], walk: ['walk', 'relabeled'], labels: ['walk', 'relabeled'] };

export function imagePage() {
  const { all } = page;
  const chosen = (query().get('panes') ?? '').split('|').filter((name) => all.runs.some((run) => run.name === name));
  const runs = all.runs.filter((run) => !chosen.length || chosen.includes(run.name));
  let id = decodeURIComponent(location.pathname.slice('/image/'.length));
  let about = { first: '' };
  let available = new Set();

  const parsed = (text) => new Map(text.split(',').filter(Boolean).map((part) => part.split(':')).filter(([key]) => all.layers.some((one) => one.key === key)).map(([key, value]) => [key, value === undefined || !(value >= 0 && value <= 1) ? 1 : +value]));
  const layers = () => parsed(query().get('layers') ?? about.first);
  const setLayers = (now) => { update({ layers: [...now].map(([key, value]) => `${key}:${value}`).join(',') || ',', bare: '' }); draw(); };
  const settings = () => only(['class_', ...Object.keys(all.sliders)]);

  const title = h('b', { id: 'name' }), place = h('span', { class: 'muted num' }), tags = h('span', { class: 'muted' });
  const panes = runs.map((run, number) => {
    const stack = h('div', { class: 'stack' }, h('img', { class: 'image', alt: '', draggable: false }),
      [...all.layers].sort((one, other) => other.opaque - one.opaque).map((one) => h('img', { class: 'layer', alt: '', draggable: false, 'data-layer': one.key })));
    const frame = h('div', { class: 'frame', 'data-pane': number }, stack, h('span', { class: 'zoom' },
      button('+', 'zoom in (+)', () => zoom(1.5)), button('−', 'zoom out (−)', () => zoom(1 / 1.5)), button('⤢', 'whole image', () => zoom(0))));
    const scores = h('span', { class: 'muted num' }), lines = h('div', { class: 'lines' });
    return { run, frame, stack, scores, lines, drawn: { layers: {} }, element: h('section', { class: 'pane' }, h('div', { class: 'title' }, h('b', {}, run.name), scores), frame, lines) };
  });
  const container = h('div', { class: `panes${runs.length > 2 ? ' many' : ''}` }, panes.map((pane) => pane.element));
  const setMode = (mode) => {
    update({ mode });
    container.classList.remove('swipe', 'flicker');
    if (mode && runs.length > 1) container.classList.add(mode);
    clearInterval(page.timer);
    if (mode === 'flicker') page.timer = setInterval(() => container.classList.toggle('second'), 700);
    for (const one of document.querySelectorAll('.modes button')) one.setAttribute('aria-pressed', one.dataset.mode === (mode ?? ''));
  };
  const leave = () => open(gridURL());
  const go = (name) => { if (name && name !== id) { id = name; history.replaceState(null, '', imageURL(id) + location.hash); load().catch(failed); } };

  // the sidebar
  const rows = new Map(all.layers.map((one) => {
    const box = h('input', { type: 'checkbox', onchange: () => toggle(one.key) });
    const slider = h('input', { type: 'range', min: 0, max: 1, step: 0.05, 'aria-label': `opacity of ${one.title}`, oninput: (event) => setOpacity(one.key, +event.target.value) });
    const explain = button('i', `what is ${one.title}?`, (event) => tip(event.target, h('b', {}, one.title), h('p', {}, one.about), one.link ? h('a', { href: one.link, target: '_blank', rel: 'noreferrer' }, 'the paper') : null), { class: 'info' });
    return [one.key, { box, slider, row: h('div', { class: 'layerrow', 'data-key': one.key }, h('kbd', {}, one.letter), h('label', { title: one.about }, box, one.title), slider, explain) }];
  }));
  const imageSlider = h('input', { type: 'range', min: 0, max: 1, step: 0.05, 'aria-label': 'opacity of the image', oninput: (event) => { update({ image: event.target.value === '1' ? '' : event.target.value }); paint(); } });
  const classes = h('select', { 'aria-label': 'class of the maps', onchange: (event) => { update({ class_: event.target.value }); draw(); } });
  const own = (name) => runs.find((run) => name in run.own)?.own[name] ?? all.sliders[name][0];
  const knobs = {};
  let waiting;
  const knob = (name) => {
    const [least, most, step] = all.sliders[name];
    const slider = h('input', { type: 'range', min: least, max: most, step, 'aria-label': name, oninput: () => {
      update({ [name]: +slider.value === own(name) ? '' : String(+slider.value) });
      text.textContent = +slider.value;
      clearTimeout(waiting);
      waiting = setTimeout(draw, 60);
    } });
    const text = h('b', { class: 'num' });
    knobs[name] = { slider, text };
    const owns = runs.filter((run) => name in run.own).map((run) => h('button', { class: 'own', title: `the value of ${run.name}`, onclick: () => { slider.value = run.own[name]; slider.dispatchEvent(new Event('input')); } }, runs.length > 1 ? `${run.name} ${run.own[name]}` : `own ${run.own[name]}`));
    return h('div', { class: 'knob', 'data-knob': name }, h('span', {}, name), slider, text, h('span', { class: 'owns' }, owns));
  };
  const groups = Object.entries(GROUPS).map(([step, names]) => h('section', { 'data-group': step }, h('h2', { title: all.steps[step] }, step), names.map(knob)));
  const reset = button("reset to the runs' own", '', () => { update(Object.fromEntries(Object.keys(all.sliders).map((name) => [name, '']))); draw(); }, { class: 'reset' });
  const marks = new Marks(container, panes.map((pane) => pane.stack), (frame, event) => placeIn(frame, event).map((share, axis) => (share - [view.x, view.y][axis] / 100) / view.zoom));
  const legend = h('div', { class: 'legend' }), values = h('div', { class: 'values num' });

  function setOpacity(key, value) {
    const now = layers();
    if (!now.has(key)) return;
    update({ layers: [...now.set(key, value)].map(([k, v]) => `${k}:${v}`).join(',') });
    paint();
  }
  function toggle(key) {
    const now = layers();
    now.delete(key) || now.set(key, 1);
    setLayers(now);
  }
  function alone(distance) {
    const keys = all.layers.map((one) => one.key).filter((key) => available.has(key));
    const now = [...layers().keys()].map((key) => keys.indexOf(key)).filter((n) => n >= 0);
    const next = now.length ? (distance > 0 ? Math.max(...now) : Math.min(...now)) + distance : 0;
    if (keys.length) setLayers(new Map([[keys[(next + keys.length) % keys.length], 1]]));
  }

  function paint() { // what needs no answer of the server
    const q = query(), now = layers();
    container.classList.toggle('bare', q.get('bare') === '1');
    imageSlider.value = q.get('image') ?? 1;
    for (const [key, { box, slider, row }] of rows) {
      box.checked = now.has(key);
      box.disabled = !available.has(key);
      slider.value = now.get(key) ?? 1;
      row.className = `layerrow${available.has(key) ? '' : ' absent'}${now.has(key) ? '' : ' off'}`;
    }
    for (const [name, { slider, text }] of Object.entries(knobs)) {
      slider.value = q.get(name) ?? own(name);
      text.textContent = +slider.value;
    }
    for (const group of groups) group.hidden = !FOLLOWS[group.dataset.group].some((key) => now.has(key));
    reset.hidden = !Object.keys(all.sliders).some((name) => q.has(name));
    classes.parentElement.hidden = !now.has('cams') && !now.has('walk');
    for (const { stack, drawn } of panes) {
      stack.querySelector('.image').style.opacity = q.get('image') ?? 1;
      for (const layer of stack.querySelectorAll('.layer')) {
        const source = now.has(layer.dataset.layer) && drawn.layers[layer.dataset.layer];
        layer.hidden = !source;
        if (source && layer.getAttribute('src') !== source) layer.src = source;
        layer.style.opacity = now.get(layer.dataset.layer) ?? 1;
      }
    }
  }
  const paneParts = (run, name) => [['run', run.name], ['id', name], ['layers', [...layers().keys()].join(',')], ...settings()];
  async function draw() {
    const mine = ++page.turn;
    paint();
    container.classList.add('busy');
    await Promise.all(panes.map(async (pane) => { // each is shown as soon as it is computed
      const drawn = await ask('pane', paneParts(pane.run, id));
      if (mine === page.turn) { pane.drawn = drawn; show(pane); }
    })).catch(failed);
    if (mine !== page.turn) return;
    container.classList.remove('busy');
    setTimeout(() => mine === page.turn && ahead(mine), 50);
  }
  function show(pane) {
    const { drawn, frame, stack, scores, lines } = pane;
    const [width, height] = about.size, down = runs.length > 2 ? 2 : 1;
    frame.hidden = !drawn.exists;
    frame.style.aspectRatio = `${width} / ${height}`;
    frame.style.width = `min(100%, calc((100vh - ${130 + 40 * down}px) / ${down} * ${width / height}))`;
    const image = stack.querySelector('.image');
    if (drawn.image && image.getAttribute('src') !== drawn.image) image.src = drawn.image;
    image.hidden = !drawn.image;
    const parts = Object.entries(drawn.scores ?? {}).filter(([, value]) => value != null).map(([step, value]) => `${step} ${percent(value)}`);
    scores.textContent = parts.length ? `mIoU, %: ${parts.join(' · ')}` : '';
    lines.replaceChildren(...[drawn.exists ? null : 'This run has no such image.', drawn.cams && `cams: ${drawn.cams}`, drawn.walk && `labels, live: ${drawn.walk}`].filter(Boolean).map((text) => h('div', {}, text)));
    available = new Set(panes.flatMap((one) => one.drawn.available ?? []));
    const colors = new Map(panes.flatMap((one) => one.drawn.legend ?? []));
    legend.replaceChildren(...[...colors].map(([name, color]) => h('span', {}, h('i', { style: `background:${color}` }), name)), panes.some((one) => one.drawn.ignored) ? h('span', {}, h('i', { class: 'hatch' }), 'ignored') : '');
    notice(panes.flatMap((one) => one.drawn.problems ?? []));
    paint();
  }
  async function ahead(mine) { // let the server render, and the browser fetch, the neighbors
    for (const name of [...about.next, ...about.previous]) {
      for (const run of runs) {
        if (mine !== page.turn) return;
        const drawn = await ask('pane', paneParts(run, name));
        for (const url of [drawn.image, ...Object.values(drawn.layers)]) if (url) new Image().src = url;
      }
    }
  }
  async function load() {
    const mine = ++page.turn, name = id;
    const found = await ask('image', [['id', name], ...only(FILTER)]);
    if (mine !== page.turn) return;
    about = found;
    title.textContent = name;
    place.textContent = `${found.place} of ${found.total}`;
    tags.textContent = `${found.picked ? '✎ picked · ' : ''}${found.tags.join(', ') || 'no class'} · ${found.split} · ${found.size.join(' × ')}`;
    if (!found.tag_ids.map(String).includes(query().get('class_'))) update({ class_: '' });
    marks.load(name, found);
    classes.replaceChildren(h('option', { value: '' }, 'all classes, the highest'), ...found.tags.map((tag, n) => h('option', { value: found.tag_ids[n], selected: query().get('class_') === String(found.tag_ids[n]) }, tag)));
    await draw();
  }

  $('#page').replaceChildren(
    h('header', { class: 'bar' }, link({ class: 'brand', href: gridURL() }, 'weakmask'), button('‹', 'previous image (←)', () => go(about.previous?.[0])), button('›', 'next image (→)', () => go(about.next?.[0])), title, place, tags, h('span', { class: 'grow' }),
      all.runs.length > 1 ? h('span', { class: 'runs' }, all.runs.map((run) => h('label', {}, h('input', { type: 'checkbox', checked: runs.includes(run), onchange: (event) => {
        const names = all.runs.filter((one) => (one === run ? event.target.checked : runs.includes(one))).map((one) => one.name);
        update({ panes: names.length && names.length < all.runs.length ? names.join('|') : '' });
        imagePage();
      } }), run.name))) : null,
      runs.length > 1 ? h('span', { class: 'modes' }, Object.entries(MODES).map(([mode, text]) => button(text, 'compare (c)', () => setMode(mode), { 'data-mode': mode }))) : null,
      button('▦', 'the grid (g)', leave), keysButton(imageKeys(all))),
    h('div', { class: 'columns' }, container, h('aside', { class: 'side' },
      h('section', { class: 'layers' }, h('div', { class: 'layerrow' }, h('span'), h('label', {}, 'image'), imageSlider, h('span')), [...rows.values()].map((one) => one.row)),
      h('section', {}, h('h2', {}, 'class of the maps'), classes), groups, reset, marks.section,
      h('section', {}, legend, values), all.runs.length > 1 ? h('section', {}, differences()) : null)));
  setMode(query().get('mode') ?? '');

  let asked = 0;
  container.addEventListener('pointermove', async (event) => {
    const frame = event.target.closest('.frame');
    if (!frame) return;
    const [x, y] = placeIn(frame, event);
    container.style.setProperty('--cut', `${100 * x}%`);
    if (performance.now() - asked < 80) return;
    asked = performance.now();
    const pane = panes[container.matches('.swipe, .flicker') ? 0 : +frame.dataset.pane];
    const at = { x: (100 * x - view.x) / (100 * view.zoom), y: (100 * y - view.y) / (100 * view.zoom) };
    const found = await ask('values', { run: pane.run.name, id, ...at }).catch(() => []);
    values.replaceChildren(...found.flat().map((text) => h('span', {}, text)));
  });
  page.onKey = (key) => {
    const layer = all.layers.find((one) => one.letter === key);
    if (layer && available.has(layer.key)) toggle(layer.key);
    const modes = Object.keys(MODES), mode = query().get('mode') ?? '';
    ({ ArrowLeft: () => go(about.previous?.[0]), ArrowRight: () => go(about.next?.[0]), Home: () => go(about.ends[0]), End: () => go(about.ends[1]),
      ArrowUp: () => alone(-1), ArrowDown: () => alone(1), ' ': () => { update({ bare: query().get('bare') ? '' : '1' }); draw(); },
      c: () => setMode(modes[(modes.indexOf(mode) + 1) % modes.length]), '+': () => zoom(1.5), '-': () => zoom(1 / 1.5), g: leave, Escape: leave, ...marks.keys })[key]?.();
  };
  load().catch(failed);
}

// Zoom, the same in all panes

let view = { zoom: 1, x: 0, y: 0 };
let grip = null;
const placeIn = (frame, event) => {
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
const apply = () => {
  const least = 100 * (1 - view.zoom);
  view.x = Math.min(0, Math.max(least, view.x));
  view.y = Math.min(0, Math.max(least, view.y));
  const style = document.documentElement.style;
  style.setProperty('--zoom', view.zoom);
  style.setProperty('--x', `${view.x}%`);
  style.setProperty('--y', `${view.y}%`);
  document.documentElement.classList.toggle('zoomed', view.zoom > 1);
  const text = view.zoom === 1 ? '' : `#${[view.zoom, view.x, view.y].map((n) => +n.toFixed(2)).join(',')}`;
  if (location.hash !== text) history.replaceState(null, '', location.pathname + location.search + text);
};
const zoom = (factor, x = 50, y = 50) => { // 0: the whole image
  const next = factor ? Math.min(16, Math.max(1, view.zoom * factor)) : 1, grown = next / view.zoom;
  view = { zoom: next, x: x - (x - view.x) * grown, y: y - (y - view.y) * grown };
  apply();
};
addEventListener('wheel', (event) => {
  const frame = event.target.closest?.('.frame');
  if (!frame) return;
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...placeIn(frame, event).map((share) => 100 * share));
}, { passive: false });
addEventListener('pointerdown', (event) => {
  const frame = event.target.closest?.('.frame');
  if (frame && event.button === 0 && !frame.closest('.marking')) grip = { frame, at: placeIn(frame, event), x: view.x, y: view.y };
});
addEventListener('pointerup', () => { grip = null; });
addEventListener('pointermove', (event) => {
  if (!grip) return;
  const [x, y] = placeIn(grip.frame, event);
  view = { zoom: view.zoom, x: grip.x + 100 * (x - grip.at[0]), y: grip.y + 100 * (y - grip.at[1]) };
  apply();
});
addEventListener('dblclick', (event) => { if (event.target.closest?.('.panes:not(.marking) .stack')) zoom(0); });

export const restoreZoom = () => {
  const given = location.hash.slice(1).split(',').map(Number);
  if (given.length === 3 && given.every(Number.isFinite)) view = { zoom: given[0], x: given[1], y: given[2] };
  apply();
};
