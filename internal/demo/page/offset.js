// An offset says where an event stands in the one order of all events. To a
// client it is opaque: it comes with each event, and Socket.IO sends the last
// one back when it reconnects. This page looks inside for two reasons only: to
// put its own messages between those of others, and to check the order that it
// was promised. An offset is epoch.milliseconds.number, both in base 36; then there
// may be the positions of other partitions, and after a tilde a tag.

// Orders two offsets of one epoch as a comparator does. Those of different
// epochs have no order: the result is NaN.
export function compare(a, b) {
  const [epochA, ...as] = parts(a);
  const [epochB, ...bs] = parts(b);
  if (epochA !== epochB) return NaN;
  for (let i = 0; i < 2; i++) {
    const order = as[i].length - bs[i].length || (as[i] > bs[i]) - (as[i] < bs[i]);
    if (order) return order;
  }
  return 0;
}

// The part of an offset worth a reader's attention.
export const brief = (offset) => parts(offset).slice(1, 3).join(".");

function parts(offset) {
  return offset.split("~")[0].split(".");
}
