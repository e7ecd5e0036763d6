export function evidence() {}
