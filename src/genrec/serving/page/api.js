// Requests to the API under /v1. The API key, if the service needs one, is stored for this tab only.

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
    return null; // private windows may refuse storage; the key is then lost at the next page load
  }
}

// Stores a key. Returns false for characters that an HTTP header cannot carry.
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
    throw new ApiError(0, "The service cannot be reached. Check that it is running.");
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
