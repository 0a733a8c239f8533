/** What is asked, and asking it: one image, its evidence, a rule and queries. It knows nothing of the page. */

import { Fault, getLabels, predict, query } from "./api.js";

const LISTED = 20; // labels with all that is known of them, and label sets; `marginals` has every label

export class Session {
  #found = null; // labels and rules as the server sent them
  #sha256 = null; // of the image, once the server has seen it
  #accepted = null; // what the last answer answered
  #asking = null; // the AbortController of the request on its way

  /** `on` has `labels`, `busy`, `answer` and `fault`: what to call when they change. */
  constructor(on) {
    this.on = on;
    this.bundle = null;
    this.labels = [];
    this.rules = [];
    this.image = null; // a Blob
    this.evidence = new Map(); // label -> is present
    this.rule = null;
    this.queries = [];
    this.answer = null;
    this.before = null; // the marginals without evidence, in column order, once they are known
  }

  /** Read the labels and rules of a bundle (null: the server's first), and ask anew if there is an image. */
  async open(bundle) {
    try {
      this.#take(await getLabels(bundle));
    } catch (fault) {
      return this.on.fault(fault);
    }
    this.on.labels();
    if (this.image) await this.refresh();
  }

  #take(found) {
    this.#found = found;
    if (this.bundle !== found.bundle) this.#sha256 = null; // each bundle remembers its own images
    this.bundle = found.bundle;
    this.labels = found.labels;
    this.rules = found.rules;
    this.before = null;
    const known = new Set(found.labels);
    this.evidence = new Map([...this.evidence].filter(([label]) => known.has(label)));
    if (!this.hasRule(this.rule)) this.rule = found.default_rule;
    // Should the new question fail, the image stays, without evidence.
    this.#accepted &&= { ...this.#accepted, evidence: new Map(), rule: this.rule, fingerprint: null };
  }

  /** Whether a rule is one of the bundle's, or a threshold. */
  hasRule(rule) {
    const isThreshold = rule !== null && rule !== "" && Number(rule) >= 0 && Number(rule) <= 1;
    return isThreshold || this.rules.some(({ name }) => name === rule);
  }

  /** Ask about another image; what was stated about the one before is forgotten. */
  show(image) {
    this.image = image;
    this.#sha256 = null;
    this.evidence = new Map();
    return this.refresh();
  }

  /** State a label present (true), absent (false) or unknown (null). */
  state(label, value) {
    const stated = new Map(this.evidence);
    value === null ? stated.delete(label) : stated.set(label, value);
    return this.#changed({ evidence: stated });
  }

  forget() {
    return this.#changed({ evidence: new Map() });
  }

  choose(rule) {
    return this.#changed({ rule });
  }

  drop(asked) {
    this.queries = this.queries.filter((one) => one !== asked);
    this.answer.answers = this.answer.answers.filter((one) => one.query !== asked);
    this.on.answer();
  }

  /** Add a query if it can be answered; throws the Fault if not. */
  async add(text) {
    const { evidence, image } = this;
    const { answers } = await this.ask({ queries: [text], top: 1 });
    const [answer] = answers;
    if (this.queries.includes(answer.query)) return;
    this.queries.push(answer.query);
    // What was asked in the meantime lacks this query, or this answer lacks its evidence.
    if (this.#asking || evidence !== this.evidence || image !== this.image) return this.refresh();
    this.answer.answers.push(answer);
    this.on.answer();
  }

  /** Answer the whole question. The latest question wins; one that fails is taken back. */
  async refresh() {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    this.on.busy(this.#sha256 ? "" : "Sending the image and computing…");
    try {
      const answer = await this.#answered(asking.signal);
      if (!asking.signal.aborted) await this.#accept(answer);
    } catch (fault) {
      if (fault.name !== "AbortError") await this.#reject(fault);
    } finally {
      if (this.#asking === asking) {
        this.#asking = null;
        this.on.busy(null);
      }
    }
  }

  /** Ask with the present evidence and rule; the image is sent if the server does not know it (any more). */
  async ask(more, signal) {
    const options = { bundle: this.bundle, evidence: Object.fromEntries(this.evidence), rule: this.rule, ...more };
    if (this.#sha256) {
      try {
        return await query(this.#sha256, options, signal);
      } catch (fault) {
        if (fault.kind !== "UnknownImage") throw fault;
      }
    }
    const { image } = this;
    const answer = await predict(image, options, signal);
    if (image === this.image) this.#sha256 = answer.sha256;
    return answer;
  }

  async #changed(change) {
    Object.assign(this, change);
    await this.refresh();
  }

  /** A query that cannot be answered with this evidence must not keep the others from being answered. */
  async #answered(signal) {
    const whole = { top: LISTED, marginals: true };
    try {
      return await this.ask({ queries: this.queries, ...whole }, signal);
    } catch (fault) {
      if (fault.status !== 422 || !this.queries.length) throw fault;
    }
    const answer = await this.ask(whole, signal);
    answer.answers = await Promise.all(this.queries.map((text) => this.#alone(text, signal)));
    return answer;
  }

  async #alone(text, signal) {
    try {
      return (await this.ask({ queries: [text], top: 1 }, signal)).answers[0];
    } catch (fault) {
      if (fault.status !== 422) throw fault;
      return { query: text, probability: null, fault: fault.message };
    }
  }

  async #accept(answer) {
    const isNewBundle = this.#accepted?.fingerprint && this.#accepted.fingerprint !== answer.fingerprint;
    if (!this.evidence.size) this.before = answer.marginals;
    else if (answer.sha256 !== this.answer?.sha256) this.before = null;
    answer.answers = answer.answers.filter((one) => this.queries.includes(one.query)); // some may be removed by now
    this.answer = answer;
    const { image, evidence, rule } = this;
    this.#accepted = { image, evidence, rule, sha256: this.#sha256, fingerprint: answer.fingerprint };
    // The server has loaded a changed bundle: its labels, rules and thresholds may differ.
    if (isNewBundle) await this.open(this.bundle);
    else this.on.answer();
  }

  async #reject(fault) {
    if (!(fault instanceof Fault)) throw fault;
    if (this.#accepted) {
      const { sha256, image, evidence, rule } = this.#accepted;
      Object.assign(this, { image, evidence, rule });
      this.#sha256 = sha256;
    } else {
      this.image = null;
    }
    // The server may have loaded a changed bundle, which lacks a label or rule of this question.
    if (fault.status === 422 && (await this.#isChanged())) await this.open(this.bundle);
    this.on.fault(fault);
  }

  async #isChanged() {
    const found = await getLabels(this.bundle).catch(() => this.#found);
    return JSON.stringify(found) !== JSON.stringify(this.#found);
  }
}
