// What a person marks as read wrong, with the right text; where the server keeps such glyphs, they are sent to it.

// The class that stands for a character: itself, or its other case where only that one is a class, as in EMNIST.
export function classOf(character, classes) {
  const cases = [character, character.toUpperCase(), character.toLowerCase()];
  return cases.find((name) => classes.includes(name));
}

export class Marks {
  // form: the element that holds input and outcome. save: where glyphs are kept, or null. written: returns what was
  // read, { classes, characters: [{ pixels, texts }] }, or null where nothing was.
  constructor(form, save, written) {
    Object.assign(this, { save, written, marked: 0 });
    this.input = form.querySelector("input");
    this.outcome = form.querySelector("output");
    this.place = form.querySelector("p");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.mark().catch((error) => this.say(error.message));
    });
    this.showPlace(save?.count);
    form.hidden = false;
  }

  say(text) {
    this.outcome.textContent = text;
  }

  showPlace(count) {
    this.place.textContent = this.save
      ? `${count} ${count === 1 ? "character is" : "characters are"} kept in ${this.save.folder}, which --data takes.`
      : "What you mark is not kept: start `glyphpress kiosk RUN_DIR --save DIR` to collect a test set of it.";
  }

  async mark() {
    const read = this.written();
    const text = [...this.input.value].filter((character) => character.trim());
    if (!read) return this.say("Write something first.");
    if (text.length !== read.characters.length) {
      return this.say(`Type ${read.characters.length} characters; you typed ${text.length}.`);
    }
    const names = text.map((character) => classOf(character, read.classes));
    const unknown = text.filter((_, at) => names[at] === undefined);
    if (unknown.length) return this.say(`The models have no class ${unknown.join(", ")}.`);
    const wrong = read.characters.map(({ pixels, texts }, at) => ({ pixels, texts, name: names[at] }));
    const chosen = wrong.filter(({ texts, name }) => texts.some((each) => each !== name));
    if (!chosen.length) return this.say("That is what the models read.");
    this.marked += chosen.length;
    if (!this.save) return this.say(`Marked as wrong: ${this.marked} so far.`);
    const files = [];
    for (const { pixels, name } of chosen) files.push(await this.keep(pixels, name));
    this.input.value = "";
    return this.say(`Kept as ${files.join(", ")}.`);
  }

  async keep(pixels, name) {
    const answer = await fetch(`/glyph?class=${encodeURIComponent(name)}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream", "X-Kiosk-Token": this.save.token },
      body: Uint8Array.from(pixels),
    });
    if (answer.status !== 200 && answer.status !== 409) throw new Error(`The server refused it (${answer.status}); reload the page.`);
    const { file, count, problem } = await answer.json();
    if (problem) throw new Error(problem);
    this.showPlace(count);
    return file;
  }
}
