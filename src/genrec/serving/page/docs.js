// Renders /openapi.json as a page that documents the API.

import { description } from "./api.js";
import { element } from "./dom.js";

const nameOf = (reference) => reference.split("/").at(-1);

function typeOf(schema = {}) {
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type ?? "anything";
}

function limits(schema) {
  const signs = { minimum: "≥", maximum: "≤", minLength: "length ≥", maxLength: "length ≤",
    minItems: "entries ≥", maxItems: "entries ≤" };
  const parts = Object.keys(signs).filter((key) => key in schema).map((key) => `${signs[key]} ${schema[key]}`);
  if (schema.default !== undefined && schema.default !== null) {
    parts.push(`default ${JSON.stringify(schema.default)}`);
  }
  return parts.join(", ");
}

const table = (rows) => element("table", {}, element("tbody", {}, ...rows.map((cells) =>
  element("tr", {}, element("th", { scope: "row" }, cells[0]),
    ...cells.slice(1).map((cell) => element("td", {}, cell ?? ""))))));

const fields = (schema) => table(Object.entries(schema.properties ?? {}).map(([name, each]) => [
  schema.required?.includes(name) ? `${name} *` : name,
  typeOf(each), [each.description, limits(each)].filter(Boolean).join(" · ")]));

function body(operation, forms) {
  const schema = operation.requestBody?.content["application/json"].schema;
  if (!schema) return [];
  return [element("h4", {}, `Body: ${typeOf(schema)}`), fields(forms[typeOf(schema)])];
}

function operation(path, method, each, forms) {
  const parameters = (each.parameters ?? []).map((one) => [
    one.required ? `${one.name} *` : one.name, one.in,
    [one.description, limits(one.schema)].filter(Boolean).join(" · ")]);
  const answers = Object.entries(each.responses).map(([status, one]) =>
    [status, one.description, typeOf(one.content?.["application/json"]?.schema)]);
  return element("details", {},
    element("summary", {}, element("code", {}, `${method.toUpperCase()} ${path}`),
      ` ${each.description ?? ""}`),
    ...(parameters.length ? [element("h4", {}, "Parameters"), table(parameters)] : []),
    ...body(each, forms), element("h4", {}, "Responses"), table(answers));
}

function panel(title, ...children) {
  return element("section", { class: "panel" }, element("h2", {}, title), ...children);
}

function show({ paths, components }) {
  const groups = {};
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, each] of Object.entries(methods)) {
      if (method !== "head") (groups[each.tags[0]] ??= []).push(operation(path, method, each, components.schemas));
    }
  }
  const forms = Object.entries(components.schemas).map(([name, schema]) => element("details", {},
    element("summary", {}, element("code", {}, name), ` ${schema.description ?? ""}`), fields(schema)));
  document.getElementById("operations").replaceChildren(
    ...Object.entries(groups).map(([tag, operations]) => panel(tag, ...operations)),
    panel("data types", ...forms));
}

try {
  show(await description());
} catch (error) {
  const text = error.status === 401
    ? "This service needs an API key. Enter it on the recommendations page first." : error.message;
  document.getElementById("operations").replaceChildren(element("p", { role: "alert" }, text));
}
