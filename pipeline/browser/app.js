// Keys, zoom, the position of the mouse, and prefetched images. The server does everything else.
window.weakmask = (() => {
  const KEYS = /^(Arrow(Left|Right|Up|Down)|[0-9]|[a-z?/]| |Escape|Home|End|PageUp|PageDown)$/;
  const ahead = new Map();
  let view = { zoom: 1, x: 0, y: 0 };

  const typing = (target) =>
    target.closest?.('input:not([type=checkbox]), textarea, select, [role=slider], [role=listbox], .q-menu');

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS.test(event.key)) return;
    if (typing(event.target)) {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    event.preventDefault();
    emitEvent('key', event.key);
  });

  // a control that keeps the focus after a click would swallow the next key
  addEventListener('pointerup', () => setTimeout(() => {
    const focus = document.activeElement;
    if (focus && !focus.matches('input:not([type=checkbox]), textarea') && !focus.closest('.q-menu')) focus.blur();
  }));

  const apply = () => {
    const style = document.documentElement.style;
    style.setProperty('--zoom', view.zoom);
    style.setProperty('--x', view.x + '%');
    style.setProperty('--y', view.y + '%');
    const text = view.zoom === 1 ? '' : `#${[view.zoom, view.x, view.y].map((n) => +n.toFixed(2)).join(',')}`;
    if (location.hash !== text) history.replaceState(history.state, '', location.pathname + location.search + text);
  };
  const keepInside = () => {
    const least = 100 * (1 - view.zoom);
    view.x = Math.min(0, Math.max(least, view.x));
    view.y = Math.min(0, Math.max(least, view.y));
    apply();
  };
  const place = (frame, event) => {
    const box = frame.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };

  addEventListener('wheel', (event) => {
    const frame = event.target.closest?.('.frame');
    if (!frame) return;
    event.preventDefault();
    const [x, y] = place(frame, event).map((share) => 100 * share);
    const zoom = Math.min(16, Math.max(1, view.zoom * Math.exp(-event.deltaY / 400)));
    const grown = zoom / view.zoom;
    view = { zoom, x: x - (x - view.x) * grown, y: y - (y - view.y) * grown };
    keepInside();
  }, { passive: false });

  let grip = null;
  addEventListener('pointerdown', (event) => {
    const frame = event.target.closest?.('.frame');
    if (frame && event.button === 0) grip = { frame, at: place(frame, event), x: view.x, y: view.y };
  });
  addEventListener('pointerup', () => { grip = null; });
  addEventListener('dblclick', (event) => {
    if (!event.target.closest?.('.frame')) return;
    view = { zoom: 1, x: 0, y: 0 };
    apply();
  });

  let asked = 0;
  addEventListener('pointermove', (event) => {
    const frame = event.target.closest?.('.frame');
    if (grip) {
      const [x, y] = place(grip.frame, event);
      view.x = grip.x + 100 * (x - grip.at[0]);
      view.y = grip.y + 100 * (y - grip.at[1]);
      keepInside();
    }
    if (!frame || performance.now() - asked < 60) return;
    asked = performance.now();
    const [x, y] = place(frame, event);
    const at = [(100 * x - view.x) / (100 * view.zoom), (100 * y - view.y) / (100 * view.zoom)];
    emitEvent('point', { pane: +frame.dataset.pane, x: at[0], y: at[1] });
  });

  const given = location.hash.slice(1).split(',').map(Number);
  if (given.length === 3 && given.every(Number.isFinite)) {
    view = { zoom: given[0], x: given[1], y: given[2] };
    apply();
  }

  return {
    address: (url) => history.replaceState(history.state, '', url + location.hash),
    prefetch: (urls) => {
      for (const url of urls) {
        if (ahead.has(url)) continue;
        const image = new Image();
        image.src = url;
        image.decode().catch(() => ahead.delete(url));
        ahead.set(url, image);
      }
      while (ahead.size > 120) ahead.delete(ahead.keys().next().value);
    },
  };
})();
