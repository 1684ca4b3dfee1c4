// Package policy decides who may read what. Its answer depends on its arguments
// alone: it keeps nothing, asks nobody and takes the time as an argument.
//
// It denies unless a rule allows, and there are five:
//   - an owner reads his own data under the purpose own-access;
//   - so does who acts for him: a household's adult, a child's guardian;
//   - the operating organisation's staff read its own devices, by role, under a
//     live purpose that they hold, unless somebody else is the data subject;
//   - they read another's data with a permission that was approved, while it lasts;
//   - anyone, administrators included, reads with a live grant that the one whose
//     data it is made to their party, for a live purpose that they hold, covering
//     the stream and the time.
//
// What the one whose data it is forbids stays forbidden whatever allows it, but for
// his own access. "The one whose data it is" is the assignment's data subject if it
// names one, else its owner. A role gives nobody another's data.
//
// It does not read the grants, does not know whether a purpose is live, and does
// not record: its caller gives the first two and writes the disclosure.
package policy
