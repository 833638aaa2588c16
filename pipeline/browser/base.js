// What both pages are made of: elements, the URL, questions to the server, notices. All state is in
// the URL, so that a reload, or a link sent to somebody else, shows the same again.

export const h = (tag, set = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(set)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
};
export const percent = (ratio) => (ratio == null ? '–' : (100 * ratio).toFixed(1));
export const points = (gain) => (gain < 0 ? '−' : '+') + Math.abs(100 * gain).toFixed(1);
export const query = () => new URLSearchParams(location.search);
export const only = (keys) => [...query()].filter(([key]) => keys.includes(key));
export const FILTER = ['q', 'class', 'split', 'failure', 'picked', 'sort', 'reverse'];
export const $ = (selector) => document.querySelector(selector);

export const address = (changes, path = location.pathname) => {
  const parts = query();
  for (const [key, value] of Object.entries(changes)) value ? parts.set(key, value) : parts.delete(key);
  const text = parts.toString().replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%7C', '|');
  return path + (text && `?${text}`);
};
export const update = (changes) => history.replaceState(null, '', address(changes) + location.hash);
export const open = (url) => { history.pushState(null, '', url + location.hash); dispatchEvent(new Event('popstate')); };
export const link = (set, ...children) => h('a', { ...set, onclick: (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open(set.href);
} }, ...children);
export const imageURL = (id) => address({ page: '' }, `/image/${encodeURIComponent(id)}`);
export const gridURL = () => address({}, '/');

export const ask = async (what, parts) => {
  const answer = await fetch(`/data/${what}?${new URLSearchParams(parts)}`).catch(() => {
    throw new Error('The server has ended; start `weakmask browse` again.');
  });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};
export const send = async (what, content) => {
  const answer = await fetch(`/${what}`, { method: 'POST', body: JSON.stringify(content) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};
export const notice = (texts) => $('#notices').replaceChildren(...[...new Set(texts)]
  .filter((text) => !sessionStorage.getItem(`dismissed ${text}`))
  .map((text) => h('p', { class: 'notice' }, h('span', {}, text), h('button', { title: 'dismiss', onclick: (event) => {
    sessionStorage.setItem(`dismissed ${text}`, '1');
    event.target.parentElement.remove();
  } }, '×'))));
export const tip = (button, ...content) => {
  const box = $('#tip');
  box.replaceChildren(...content);
  box.showPopover();
  const at = button.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.max(8, Math.min(at.bottom + 6, innerHeight - box.offsetHeight - 8))}px`;
};
export const button = (text, title, onclick, set = {}) => h('button', { title, onclick, ...set }, text);
export const choice = (label, options, value, onchange) => h('label', {}, label, h('select', { onchange: (event) => onchange(event.target.value) },
  Object.entries(options).map(([key, text]) => h('option', { value: key, selected: key === value }, text))));
export const keysButton = (rows) => button('?', 'keys', (event) => tip(event.target, h('table', { class: 'keys' },
  rows.map(([key, what]) => h('tr', {}, h('td', {}, h('kbd', {}, key)), h('td', {}, what))))));

// all: what all pages know (runs, classes, layers); turn: of several requests the last one wins
export const page = { all: null, turn: 0, timer: 0, onKey() {} };
export const failed = (error) => notice([error.message]);

export function differences() {
  const { runs, differences: rows } = page.all;
  if (runs.length < 2) return null;
  return h('details', { class: 'differences' }, h('summary', {}, `Parameters that differ: ${rows.length || 'none'}`),
    h('div', { class: 'wide' }, h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, 'parameter'), runs.map((run) => h('th', {}, run.name)))),
      h('tbody', {}, rows.map(([name, ...values]) => h('tr', {}, h('th', {}, name), values.map((value) => h('td', {}, value))))))));
}
