// What pages ask again and again: one question at a time, none while nobody looks.

/** Does some work at once and every `ms`; `failed` is told of an error, and null when it is over.
 *  What it returns ends it. */
export function every(ms, work, failed) {
  const end = new AbortController();
  let timer;
  // Rates need two answers: the second question comes soon.
  let first = true;
  const turn = async () => {
    clearTimeout(timer);
    if (end.signal.aborted) return;
    if (!document.hidden) {
      try {
        await work(end.signal);
        if (!end.signal.aborted) failed?.(null);
      } catch (error) {
        if (end.signal.aborted || error.name === "AbortError") return;
        failed?.(error);
      }
    }
    timer = setTimeout(turn, first ? Math.min(ms, 1000) : ms);
    first = false;
  };
  const seen = () => document.hidden || turn();
  document.addEventListener("visibilitychange", seen);
  turn();
  return () => {
    end.abort();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  };
}
