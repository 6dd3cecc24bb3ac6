// The picture of dispatch: connections flow from the listener to the workers, as much to each as it is given. A ribbon is as
// wide as the worker's share; sparks are connections, some of them where there are too many to be seen.

const SPARKS_A_SECOND = 70;
const JOURNEY_MS = 1_500;

export class Flow {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.ribbons = [];
    this.sparks = [];
    this.last = 0;
    this.owed = 0;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.lay()).observe(canvas.parentElement);
    const step = (now) => {
      this.step(now);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  /** Takes the rows as they stand in the table: `{ element, rate, share, tone }`. */
  show(rows) {
    // A second is a short time: what is drawn follows the figures, but calmly.
    const before = new Map((this.rows ?? []).map((row) => [row.element, row]));
    this.rows = rows.map((row) => {
      const drawn = before.get(row.element)?.rate;
      const calm = drawn == null || row.rate == null ? row.rate : drawn + 0.4 * (row.rate - drawn);
      return { ...row, rate: calm };
    });
    this.lay();
  }

  lay() {
    if (!this.rows) return;
    const area = this.canvas.parentElement.getBoundingClientRect();
    const ratio = devicePixelRatio || 1;
    this.size = { width: area.width, height: area.height };
    if (this.canvas.width !== Math.round(area.width * ratio) || this.canvas.height !== Math.round(area.height * ratio)) {
      this.canvas.width = Math.round(area.width * ratio);
      this.canvas.height = Math.round(area.height * ratio);
    }
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(this.canvas);
    this.colours = Object.fromEntries(["accent", "canary", "quiet", "bad", "line"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    this.ribbons = this.ribbonsOf(area);
  }

  ribbonsOf(area) {
    const total = this.rows.reduce((sum, row) => sum + (row.rate ?? 0), 0);
    const parts = this.rows.map((row) => {
      if (total > 0) return (row.rate ?? 0) / total;
      return row.share ?? 1 / this.rows.length;
    });
    const places = this.rows.map((row) => {
      const place = row.element.getBoundingClientRect();
      return { middle: place.top - area.top + place.height / 2, height: place.height };
    });
    if (places.length === 0) return [];
    const first = places[0].middle;
    const last = places[places.length - 1].middle;
    const bar = Math.min(Math.max(last - first, 36) * 0.5, 150);
    const middle = (first + last) / 2;
    let from = middle - bar / 2;
    this.source = { x: 6, top: from, height: bar };
    return places.map((place, index) => {
      const width = Math.max(bar * parts[index], 1);
      const ribbon = {
        from: from + (bar * parts[index]) / 2,
        to: place.middle,
        width,
        end: Math.min(Math.max(width, 2), place.height * 0.55),
        tone: this.rows[index].tone,
        rate: total > 0 ? (this.rows[index].rate ?? 0) : 0,
      };
      from += bar * parts[index];
      return ribbon;
    });
  }

  step(now) {
    const passed = Math.min(now - this.last, 100);
    this.last = now;
    if (!this.size || document.hidden) return;
    const { context } = this;
    context.clearRect(0, 0, this.size.width, this.size.height);
    for (const ribbon of this.ribbons) this.drawRibbon(ribbon);
    if (this.source) {
      context.fillStyle = this.colours.accent;
      context.beginPath();
      context.roundRect(this.source.x - 4, this.source.top - 2, 5, this.source.height + 4, 2.5);
      context.fill();
    }
    if (!this.still.matches) this.drawSparks(now, passed);
  }

  point(ribbon, part, aside) {
    const x0 = this.source.x + 2;
    const x1 = this.size.width - 6;
    const lean = (x1 - x0) * 0.5;
    const back = 1 - part;
    const y0 = ribbon.from + aside * ribbon.width;
    const y1 = ribbon.to + aside * ribbon.end;
    const x = back ** 3 * x0 + 3 * back ** 2 * part * (x0 + lean) + 3 * back * part ** 2 * (x1 - lean) + part ** 3 * x1;
    const y = (back ** 3 + 3 * back ** 2 * part) * y0 + (3 * back * part ** 2 + part ** 3) * y1;
    return [x, y];
  }

  drawRibbon(ribbon) {
    const { context } = this;
    const x0 = this.source.x + 2;
    const x1 = this.size.width - 6;
    const lean = (x1 - x0) * 0.5;
    const [top0, top1] = [ribbon.from - ribbon.width / 2, ribbon.to - ribbon.end / 2];
    const [low0, low1] = [ribbon.from + ribbon.width / 2, ribbon.to + ribbon.end / 2];
    context.globalAlpha = ribbon.tone === "quiet" ? 0.12 : 0.18;
    context.fillStyle = this.colours[ribbon.tone];
    context.beginPath();
    context.moveTo(x0, top0);
    context.bezierCurveTo(x0 + lean, top0, x1 - lean, top1, x1, top1);
    context.lineTo(x1, low1);
    context.bezierCurveTo(x1 - lean, low1, x0 + lean, low0, x0, low0);
    context.fill();
    context.globalAlpha = 1;
    context.beginPath();
    context.arc(x1, ribbon.to, 2.5, 0, 2 * Math.PI);
    context.fill();
  }

  drawSparks(now, passed) {
    const total = this.ribbons.reduce((sum, ribbon) => sum + ribbon.rate, 0);
    this.owed += (Math.min(total, SPARKS_A_SECOND) * passed) / 1000;
    while (this.owed >= 1) {
      this.owed -= 1;
      let drawn = Math.random() * total;
      const at = this.ribbons.findIndex((ribbon) => (drawn -= ribbon.rate) < 0);
      if (at >= 0) this.sparks.push({ at, born: now, aside: (Math.random() - 0.5) * 0.8 });
    }
    const { context } = this;
    this.sparks = this.sparks.filter((spark) => now - spark.born < JOURNEY_MS && this.ribbons[spark.at]);
    for (const spark of this.sparks) {
      const part = (now - spark.born) / JOURNEY_MS;
      const ribbon = this.ribbons[spark.at];
      const [x, y] = this.point(ribbon, part, spark.aside);
      context.globalAlpha = Math.min(1, 5 * part, 5 * (1 - part));
      context.fillStyle = this.colours[ribbon.tone];
      context.beginPath();
      context.arc(x, y, 1.8, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }
}
