// The grid: a page of cards, with everything to sort and filter them by.

import { $, FILTER, address, ask, button, choice, differences, failed, h, imageURL, keysButton, link, notice, only, page, percent, points, query, update } from './base.js';

const sign = (values, number) => { // '', up or down: how a run compares with the first
  const difference = number && values[0] != null && values[number] != null ? values[number] - values[0] : 0;
  return Math.abs(difference) < 0.0005 ? '' : difference < 0 ? 'down' : 'up';
};
const gain = (values, number) => (sign(values, number) ? h('small', { class: sign(values, number) }, ` ${points(values[number] - values[0])}`) : null);

const gridKeys = [['← →', 'previous, next page'], ['Home End', 'first, last page'], ['/', 'search']];

export function gridPage() {
  const { all } = page;
  const change = (changes) => { update({ page: '', ...changes }); refresh(); };
  const toggled = (key, name) => {
    const now = (query().get(key) ?? '').split('|').filter(Boolean);
    return now.includes(name) ? now.filter((one) => one !== name).join('|') : [...now, name].join('|');
  };
  const chip = (key, name, text, count, { dot = null, ...set } = {}) => h('button', { class: 'chip', 'data-part': key, 'data-name': name, ...set,
    onclick: () => change({ [key]: key === 'class' ? toggled(key, name) : query().get(key) === name ? '' : name }) }, dot, text, h('small', {}, count));
  const q = query();
  const search = h('input', { type: 'search', placeholder: 'search id', 'aria-label': 'search id', value: q.get('q') ?? '', oninput: (event) => change({ q: event.target.value }) });
  const layers = Object.fromEntries([['masks', 'labels or predictions'], ['image', 'the image'], ...all.layers.map((one) => [one.key, one.title])]);
  const opacity = h('input', { type: 'range', min: 0, max: 1, step: 0.05, value: q.get('opacity') ?? 1, 'aria-label': 'opacity', title: 'opacity of the layer',
    oninput: (event) => { update({ opacity: event.target.value }); cards.style.setProperty('--opacity', event.target.value); } });
  const count = h('span', { class: 'muted num count' });
  const summary = h('summary');
  const cards = h('main', { class: 'grid' });
  cards.style.setProperty('--opacity', opacity.value);
  const turnTo = (page) => { update({ page: page > 1 ? page : '' }); refresh(); scrollTo(0, 0); };
  let shown = { page: 1, pages: 1 };
  const scored = Object.keys(all.steps).filter((step) => all.runs.some((run) => step in run.scores));

  $('#page').replaceChildren(
    h('header', { class: 'bar' }, link({ class: 'brand', href: '/' }, 'weakmask'), search,
      choice('sort by', all.sorts, q.get('sort') ?? 'id', (sort) => change({ sort: sort === 'id' ? '' : sort })),
      button('⇅', 'reverse the order', () => change({ reverse: query().get('reverse') ? '' : '1' })),
      choice('thumbnails show', layers, q.get('show') ?? 'masks', (show) => change({ show })), opacity,
      h('span', { class: 'grow' }), count,
      button('‹', 'previous page', () => turnTo(shown.page - 1)), button('›', 'next page', () => turnTo(shown.page + 1)), keysButton(gridKeys)),
    h('details', { class: 'overview', open: innerWidth > 700 }, summary,
      scored.length ? h('div', { class: 'wide' }, h('table', {},
        h('thead', {}, h('tr', {}, h('th', {}, 'mIoU, %'), scored.map((step) => h('th', { title: all.steps[step] }, step)))),
        h('tbody', {}, all.runs.map((run, number) => h('tr', {}, h('th', {}, run.name), scored.map((step) => h('td', {}, percent(run.scores[step]), gain(all.runs.map((one) => one.scores[step]), number)))))))) : null,
      differences(),
      h('div', { class: 'chips' }, Object.entries(all.splits).map(([name, n]) => chip('split', name, name, n)),
        all.picked ? chip('picked', '1', '✎ picked', all.picked, { title: 'worth correcting, as weakmask pick says' }) : null,
        all.classes.map(([name, n, color]) => chip('class', name, name, n, { dot: h('i', { style: `background:${color}` }) }))),
      all.failures.length ? h('div', { class: 'chips' }, all.failures.map(([key, text, about, n]) => chip('failure', key, text, n, { title: about }))) : null),
    cards);

  async function refresh() {
    const mine = ++page.turn, parts = query();
    for (const one of document.querySelectorAll('.chip')) {
      one.setAttribute('aria-pressed', (parts.get(one.dataset.part) ?? '').split('|').includes(one.dataset.name));
    }
    const active = [parts.get('picked') && 'picked', ...['split', 'class', 'failure'].map((key) => parts.get(key)?.replaceAll('|', ', '))].filter(Boolean).join(', ');
    summary.textContent = `Scores and filters of ${all.images} images${active && `; only ${active}`}`;
    const found = await ask('grid', only([...FILTER, 'page', 'show']));
    if (mine !== page.turn) return;
    shown = found;
    notice(all.problems);
    count.textContent = found.cards.length ? `${found.start}–${found.start + found.cards.length - 1} of ${found.total}` : 'none';
    const clear = () => { history.replaceState(null, '', address(Object.fromEntries([...FILTER, 'page'].map((key) => [key, '']))) + location.hash); gridPage(); };
    cards.replaceChildren(...found.cards.map(card), ...(found.cards.length ? [] : [h('p', { class: 'empty' }, 'No image passes this filter. ', button('clear the filter', '', clear))]));
  }
  page.onKey = (key) => {
    if (key === '/') search.focus();
    const pages = { ArrowLeft: shown.page - 1, ArrowRight: shown.page + 1, Home: 1, End: shown.pages };
    if (key in pages) turnTo(Math.min(Math.max(1, pages[key]), shown.pages));
  };
  refresh().catch(failed);
}

function card(one) {
  const { runs } = page.all;
  const sort = query().get('sort');
  const steps = Object.keys(one.scores);
  return link({ class: 'card', href: imageURL(one.id) },
    h('span', { class: 'thumb' }, h('img', { loading: 'lazy', src: one.image, alt: 'cannot be read: see its page' }),
      one.layer ? h('img', { class: 'over', loading: 'lazy', src: one.layer, alt: '' }) : null),
    h('span', { class: one.picked ? 'id picked' : 'id', title: one.id }, one.id),
    h('span', { class: 'tags' }, `${one.tags.join(', ') || 'no class'} · ${one.split}`),
    sort?.startsWith('gain') && one.value != null ? h('span', { class: 'value' }, 'gain ', h('b', {}, percent(one.value))) : null,
    steps.length ? h('table', { class: 'num' }, h('tr', {}, steps.map((step) => h('th', { class: step === sort ? 'on' : '' }, step))),
      runs.map((run, number) => h('tr', { title: `mIoU of ${run.name}, %` }, steps.map((step) => {
        const values = one.scores[step];
        return h('td', { class: sign(values, number) || (step === sort ? 'on' : '') }, percent(values[number]));
      })))) : null);
}
