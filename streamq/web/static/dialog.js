// What the pages ask before they act, and what they say when it is done.
import { $, el, say } from "./dom.js";

let told = 0;
export function tell(words) {
  say($("said"), words);
  clearTimeout(told);
  told = setTimeout(() => say($("said"), ""), 6000);
}

// Asks in a dialog: fields are [{name, label, value?, type?, hint?}]. run(values) may throw what stands in its way.
export function ask(title, words, fields, yes, run) {
  say($("dialog-title"), title);
  say($("dialog-words"), words);
  say($("dialog-error"), "");
  say($("dialog-yes"), yes);
  $("dialog-fields").replaceChildren(...fields.flatMap((field) => [
    el("label", { for: `field-${field.name}` }, field.label),
    el("input", { id: `field-${field.name}`, name: field.name, type: field.type || "text", value: field.value || "", placeholder: field.hint || "", autocomplete: "off" })]));
  $("dialog-form").onsubmit = async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(fields.map((field) => [field.name, $(`field-${field.name}`).value.trim()]));
    $("dialog-yes").disabled = true;
    try {
      await run(values);
      $("dialog").close();
    } catch (wrong) {
      say($("dialog-error"), wrong.message);
    } finally {
      $("dialog-yes").disabled = false;
    }
  };
  $("dialog").showModal();
}
$("dialog-no").addEventListener("click", () => $("dialog").close());
