// What a person marks as read wrong, with the right text; where the server keeps such glyphs, they are sent to it.

// The class that a character stands for: itself, or its other case where only that one is a class, as in EMNIST.
export function classOf(character, classes) {
  const cases = [character, character.toUpperCase(), character.toLowerCase()];
  return cases.find((name) => classes.includes(name));
}

// The characters that a text names: its letters without spaces, or its words where classes have longer names.
function namesIn(text, classes) {
  const wordy = classes.some((name) => [...name].length > 1);
  return wordy ? text.split(/\s+/).filter(Boolean) : [...text].filter((character) => character.trim());
}

function count(number, name) {
  return `${number} ${name}${number === 1 ? "" : "s"}`;
}

export class Marks {
  // form: the element that holds input and outcome. save: where glyphs are kept, or null. written: returns what was
  // read, { classes, characters: [{ pixels, read, alone }] }, or null where nothing was; `read` and `alone` are what
  // each model read, in its word and without it.
  constructor(form, save, written) {
    // sent: the pixels of what is kept since the page was opened, so that a slip can be put right.
    Object.assign(this, { form, save, written, marked: 0, sent: new Set() });
    this.input = form.querySelector("input");
    this.outcome = form.querySelector("output");
    this.place = form.querySelector("p");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.mark(this.input.value);
    });
    this.showPlace(save?.count);
  }

  // Show the form where something is read, else hide it with what it said last.
  show(read) {
    this.form.hidden = !read;
    if (!read) this.say("");
  }

  say(text) {
    this.outcome.textContent = text;
  }

  showPlace(kept) {
    this.place.textContent = this.save
      ? `${count(kept, "character")} kept in ${this.save.folder}, which --data takes as a test set.`
      : "What you mark is not kept. To collect a test set of it, start the kiosk with --save DIR.";
  }

  // Mark the whole writing as wrong, or one character of it.
  async mark(text, number) {
    const read = this.written();
    if (!read) return this.say("Write something first.");
    // Marks that both models leave out have no place in the text.
    const seen = read.characters.filter((character) => character.read.some(Boolean));
    const asked = number === undefined ? seen : [read.characters[number]];
    const typed = namesIn(text, read.classes);
    if (typed.length !== asked.length) {
      return this.say(`There ${asked.length === 1 ? "is" : "are"} ${count(asked.length, "character")} here, and you typed ${typed.length}.`);
    }
    const names = typed.map((character) => classOf(character, read.classes));
    const unknown = typed.filter((_, at) => names[at] === undefined);
    if (unknown.length) return this.say(`The models have no class ${unknown.join(", ")}.`);
    const wrong = asked
      .map(({ pixels, read: texts, alone }, at) => ({ pixels, texts: [...texts, ...alone], name: names[at] }))
      .filter(({ pixels, texts, name }) => texts.some((each) => each !== name) || this.sent.has(String(pixels)));
    if (!wrong.length) return this.say("That is what the models read.");
    if (this.save) return this.keepAll(wrong);
    this.marked += wrong.length;
    this.input.value = "";
    return this.say(`Marked as wrong (${this.marked} so far): ${wrong.map(({ name }) => name).join(", ")}.`);
  }

  async keepAll(wrong) {
    const kept = [];
    try {
      for (const { pixels, name } of wrong) {
        const instead = await this.keep(pixels, name);
        kept.push(instead ? `${name} in place of ${instead}` : name);
        this.sent.add(String(pixels));
      }
    } catch (error) {
      return this.say(kept.length ? `${error.message} Kept before that: ${kept.join(", ")}.` : error.message);
    }
    this.marked += wrong.length;
    this.input.value = "";
    return this.say(`Kept: ${kept.join(", ")}.`);
  }

  // Returns the class as which the glyph was kept until now, or an empty text.
  async keep(pixels, name) {
    const answer = await fetch(`/glyph?class=${encodeURIComponent(name)}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream", "X-Kiosk-Token": this.save.token },
      body: pixels,
    });
    if (answer.status !== 200 && answer.status !== 409) {
      throw new Error(`The server refused it (${answer.status}); reload the page.`);
    }
    const { count: kept, instead, problem } = await answer.json();
    if (problem) throw new Error(problem);
    this.showPlace(kept);
    return instead;
  }
}
