// node:test verdicts as lines of the runner's results file. Files are reported as tests too, by their path: those are left out
// unless they failed as a whole.
const line = (verdict, name, why = '') => `${verdict}\t${name}\t${why.replace(/\s+/g, ' ').slice(0, 300)}\n`;

export default async function* reporter(source) {
  for await (const { type, data } of source) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const file = data.name.endsWith('.mjs');
    if (type === 'test:fail') {
      const error = data.details.error;
      if (!file || error?.failureType !== 'subtestsFailed') {
        yield line('failed', data.name, String((error?.cause && error.cause.message) || error?.message || error));
      }
    } else if (data.skip !== undefined) {
      yield line('skipped', data.name, String(data.skip));
    } else if (!file) {
      yield line('passed', data.name);
    }
  }
}
