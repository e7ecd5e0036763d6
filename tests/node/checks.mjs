// A client's checks: each prints one line of JSON, whether it holds or not.
export async function check(name, holds) {
  let result;
  try {
    result = (await holds()) ? "ok" : "wrong answer";
  } catch (error) {
    result = `${error.name}: ${error.message}`.slice(0, 1500);
  }
  console.log(`{"check": ${JSON.stringify(name)}, "result": ${JSON.stringify(result)}}`);
}
