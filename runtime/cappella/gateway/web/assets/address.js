// The address of the page. Where the user goes wins over what the page itself puts there.

let followed = null;

/** The parts of the address, `ask` and `ID` of `#ask/ID`; it is the one that the page follows from now on. */
export function followAddress() {
  followed = location.hash;
  return followed.slice(1).split("/");
}

/** Put back the address that is followed, after a link that leads to no view. */
export function putBackAddress() {
  history.replaceState(null, "", followed || "#ask");
}

/** Put `hash` in the place of the address that is followed. Another one is where the user is on the way to: it stays. */
export function replaceAddress(hash) {
  if (location.hash !== followed || hash === followed) return;
  history.replaceState(null, "", hash);
  followed = hash;
}
