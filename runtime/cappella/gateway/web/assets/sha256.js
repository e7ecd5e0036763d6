// SHA-256 of a text. Browsers offer it only to pages that came over HTTPS; this page may come over plain HTTP.

const ROUNDS = 64;
const BLOCK_BYTES = 64;
const PRIMES = firstPrimes(ROUNDS);
const FIRST_STATE = PRIMES.slice(0, 8).map((prime) => fraction(prime, 1 / 2));
const CONSTANTS = PRIMES.map((prime) => fraction(prime, 1 / 3));

/** The digest of a text's UTF-8, in hexadecimal. */
export function sha256(text) {
  const bytes = padded(new TextEncoder().encode(text));
  const view = new DataView(bytes.buffer);
  let state = FIRST_STATE;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) state = compressed(state, schedule(view, at));
  return state.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

function padded(bytes) {
  const whole = new Uint8Array(Math.ceil((bytes.length + 9) / BLOCK_BYTES) * BLOCK_BYTES);
  whole.set(bytes);
  whole[bytes.length] = 0x80;
  new DataView(whole.buffer).setBigUint64(whole.length - 8, BigInt(bytes.length) * 8n);
  return whole;
}

function schedule(view, at) {
  const words = new Int32Array(ROUNDS);
  for (let i = 0; i < 16; i += 1) words[i] = view.getInt32(at + i * 4);
  for (let i = 16; i < ROUNDS; i += 1) {
    const [a, b] = [words[i - 15], words[i - 2]];
    const low = rotated(a, 7) ^ rotated(a, 18) ^ (a >>> 3);
    words[i] = words[i - 16] + low + words[i - 7] + (rotated(b, 17) ^ rotated(b, 19) ^ (b >>> 10));
  }
  return words;
}

function compressed(state, words) {
  let [a, b, c, d, e, f, g, last] = state;
  for (let i = 0; i < ROUNDS; i += 1) {
    const chosen = (e & f) ^ (~e & g);
    const one = (last + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + chosen + CONSTANTS[i] + words[i]) | 0;
    const two = ((rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [a, b, c, d, e, f, g, last] = [(one + two) | 0, a, b, c, (d + one) | 0, e, f, g];
  }
  return [a, b, c, d, e, f, g, last].map((word, i) => (word + state[i]) | 0);
}

function rotated(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}

function firstPrimes(count) {
  const found = [];
  for (let each = 2; found.length < count; each += 1) if (found.every((prime) => each % prime)) found.push(each);
  return found;
}

/** The first 32 bits behind the point of a root. */
function fraction(prime, power) {
  return ((prime ** power % 1) * 2 ** 32) | 0;
}
