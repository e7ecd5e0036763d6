export function mount() { return { unmount() {} }; }
