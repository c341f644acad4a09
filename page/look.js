// How lines look: a colour and dashes, so that nobody has to tell them apart by colour alone.

const COLOURS = 7; // The classes c0 to c6 of the style sheet, from the palette of Okabe and Ito.
const DASHES = ["none", "9 4", "2 4", "10 4 2 4"];

/** The look of the rule of this number: no two have the same. */
export function lookOf(number) {
  return { colour: `c${number % COLOURS}`, dashes: DASHES[number % DASHES.length] };
}
