// A client's checks: each prints one line of JSON, whether it holds or not. Not asked of small models with real weights where
// only a clever one does it, as calling a tool when it is free to.
export async function check(name, holds, { clever = false } = {}) {
  if (clever && process.env.REAL_WEIGHTS) return;
  let result;
  try {
    result = (await holds()) ? "ok" : "wrong answer";
  } catch (error) {
    result = `${error.name}: ${error.message}`.slice(0, 1500);
  }
  console.log(`{"check": ${JSON.stringify(name)}, "result": ${JSON.stringify(result)}}`);
}
