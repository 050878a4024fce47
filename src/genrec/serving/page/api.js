// Talks to /v1; the API key, if one is needed, stays in this tab.

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const NAME = "genrec-key";
let known = read();

function read() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null; // a private window may refuse; the key is then kept until the next load
  }
}

// Keep a key; false if it cannot be one, as headers hold plain characters only.
export function useKey(key) {
  if (!/^[\x21-\x7e]+$/.test(key)) return false;
  known = key;
  try {
    sessionStorage.setItem(NAME, key);
  } catch {
    // as above
  }
  return true;
}

export const hasKey = () => Boolean(known);

async function ask(path, { signal, body } = {}) {
  const headers = { Accept: "application/json" };
  if (known) headers.Authorization = `Bearer ${known}`;
  const options = { headers, signal };
  if (body) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, answer.detail || response.statusText);
  return answer;
}

export const findItems = (query, signal) =>
  ask(`/v1/items?limit=8&q=${encodeURIComponent(query)}`, { signal });
export const recommend = (body, signal) => ask("/v1/recommend", { body, signal });
export const runFacts = () => ask("/v1/run");
export const description = () => ask("/openapi.json");
