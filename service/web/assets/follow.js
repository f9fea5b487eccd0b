// Keep a scrolling box at its end while its content grows, until the reader scrolls up.

const NEAR = 48; // px from the end that count as the end

/** Follow `content` inside `box`; `back` is a button that is shown while the reader is elsewhere. Returns `toEnd`. */
export function follow(box, content, back) {
  let following = true;
  let top = 0;
  const isAtEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
  const show = () => (back.hidden = following);
  const stay = () => {
    if (following) box.scrollTop = box.scrollHeight;
    else if (isAtEnd()) following = true;
    show();
  };
  box.addEventListener("scroll", () => {
    // Only a reader moves up. Content that grows leaves the place as it is, and is followed below.
    if (isAtEnd()) following = true;
    else if (box.scrollTop < top) following = false;
    top = box.scrollTop;
    show();
  });
  const sizes = new ResizeObserver(stay);
  sizes.observe(content);
  sizes.observe(box); // the composer grows, a keyboard comes up, a phone is turned
  const toEnd = () => {
    following = true;
    stay();
  };
  back.onclick = () => {
    toEnd();
    box.focus();
  };
  return toEnd;
}
