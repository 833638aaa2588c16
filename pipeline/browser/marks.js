// Points and boxes that a person clicks on an image, a draft until they are saved as hints.

import { button, failed, h, page, send } from './base.js';

export const markKeys = [['m', 'mark: click points, drag boxes'], ['n', 'mark with the next class'], ['z', 'take back the last mark'], ['s', 'save all marks as hints']];
const drafts = new Map(); // id -> marks, as the server has them: [label, x, y] or [label, x0, y0, x1, y1]
addEventListener('beforeunload', (event) => drafts.size && event.preventDefault());

export class Marks {
  // placeIn(frame, event): where a pointer is, in fractions of the image; over: what marks are drawn on
  constructor(container, stacks, placeIn) {
    Object.assign(this, { container, placeIn, id: '', size: [1, 1], marks: null, from: null });
    this.covers = stacks.map((stack) => stack.appendChild(h('div', { class: 'marks' })));
    this.toggle = button('mark', 'mark this image (m)', () => this.turn());
    this.label = h('select', { 'aria-label': 'class of the marks' });
    this.undoing = button('↶', 'take back the last mark (z)', () => this.undo());
    this.saving = button('save', 'save as hints (s)', () => this.save());
    this.said = h('div', { class: 'muted' });
    this.section = h('section', { class: 'marking-tools' }, h('h2', {}, 'hints of yours'),
      h('div', { class: 'row' }, this.toggle, this.label, this.undoing, this.saving), this.said);
    this.keys = { m: () => this.turn(), n: () => this.next(), z: () => this.undo(), s: () => this.save() };
    container.addEventListener('pointerdown', (event) => this.down(event));
    container.addEventListener('pointermove', (event) => this.from && this.draw([this.mark(event)]));
    container.addEventListener('pointerup', (event) => this.up(event));
    container.addEventListener('pointercancel', () => { this.from = null; this.draw(); });
  }
  get active() { return this.container.matches('.marking'); }
  load(id, about) {
    Object.assign(this, { id, size: about.size, marks: drafts.get(id) ?? about.marks, from: null });
    this.section.hidden = !this.marks;
    if (!this.marks) this.container.classList.remove('marking');
    this.label.replaceChildren(...about.tags.map((tag, n) => h('option', { value: about.tag_ids[n] + 1 }, tag)), h('option', { value: 0 }, 'background'));
    this.said.textContent = 'A click is a point, a drag a box around an object.';
    this.draw();
  }
  turn() {
    if (this.marks) this.container.classList.toggle('marking');
    this.draw();
  }
  next() { this.label.selectedIndex = (this.label.selectedIndex + 1) % this.label.length; }
  change(marks) {
    drafts.set(this.id, this.marks = marks);
    this.draw();
  }
  undo() { if (this.marks?.length) this.change(this.marks.slice(0, -1)); }
  async save() {
    try {
      for (const [id, marks] of drafts) {
        this.said.textContent = await send('hints', { id, marks });
        if (drafts.get(id) === marks) drafts.delete(id);
      }
    } catch (error) { failed(error); }
    this.draw();
  }

  down(event) {
    const frame = event.target.closest('.frame');
    if (!this.active || !frame || event.button !== 0 || event.target.closest('button')) return;
    this.from = { frame, at: this.placeIn(frame, event), x: event.clientX, y: event.clientY };
    frame.setPointerCapture(event.pointerId);
  }
  mark(event) { // a point, or from some pixels of the screen on a box
    const label = +this.label.value, { frame, at, x, y } = this.from, to = this.placeIn(frame, event);
    const pixel = (share, axis, most) => Math.min(Math.max(0, Math.floor(10 * share * this.size[axis]) / 10), most);
    const box = [0, 1].map((axis) => [at[axis], to[axis]].map((share) => pixel(share, axis, this.size[axis])).sort((a, b) => a - b));
    const drawn = label && Math.min(Math.abs(event.clientX - x), Math.abs(event.clientY - y)) > 4 && box.every(([low, high]) => low < high);
    return drawn ? [label, box[0][0], box[1][0], box[0][1], box[1][1]] : [label, ...at.map((share, axis) => pixel(share, axis, this.size[axis] - 0.1))];
  }
  up(event) {
    if (!this.from) return;
    const mark = this.mark(event);
    this.from = null;
    this.change([...this.marks, mark]);
  }
  draw(further = []) {
    const [width, height] = this.size;
    const element = ([label, x, y, right, bottom]) => {
      const box = right !== undefined, share = (value, whole) => `${(100 * value) / whole}%`;
      const place = box ? `width:${share(right - x, width)};height:${share(bottom - y, height)};` : '';
      return h('i', { class: box ? 'box' : 'point', style: `left:${share(x, width)};top:${share(y, height)};${place}--own:${label ? page.all.classes[label - 1][2] : '#fff'}` });
    };
    for (const cover of this.covers) cover.replaceChildren(...[...(this.marks ?? []), ...further].map(element));
    this.toggle.setAttribute('aria-pressed', this.active);
    this.undoing.disabled = !this.marks?.length;
    this.saving.disabled = !drafts.size;
    this.saving.textContent = drafts.size > 1 ? `save ${drafts.size} images` : 'save';
  }
}
