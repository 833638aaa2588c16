// Starts the page that the URL names, and sends it the keys.

import { $, ask, failed, h, page } from './base.js';
import { gridPage } from './grid.js';
import { imagePage, restoreZoom } from './image.js';

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.('input[type=search], select, input[type=range]');
  if (event.key === 'Escape' && (typing || $('#tip').matches(':popover-open'))) { event.target.blur?.(); return; }
  if (typing || (event.key === ' ' && event.target.matches?.('button, summary'))) return;
  if (/^(Arrow|[0-9a-z+\-/]$| $|Home$|End$|Escape$)/.test(event.key)) {
    event.preventDefault();
    page.onKey(event.key);
  }
});
// a control that keeps the focus after a click would swallow the next key
addEventListener('pointerup', () => setTimeout(() => document.activeElement?.matches('button, input[type=range], input[type=checkbox]') && document.activeElement.blur()));
addEventListener('popstate', () => route());

async function route() {
  clearInterval(page.timer);
  page.turn += 1;
  try {
    page.all = await ask('runs', {});
    (location.pathname.startsWith('/image/') ? imagePage : gridPage)();
  } catch (error) {
    failed(error);
  }
}

document.body.append(h('div', { id: 'notices' }), h('div', { id: 'page' }), h('div', { id: 'tip', popover: 'auto' }));
restoreZoom();
route();
