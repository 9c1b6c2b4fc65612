/** A worker process: runs the seeds it is sent, one after the other; with an argument, on code with that fault planted. */
import { plant } from './planted.ts'

const [fault] = process.argv.slice(2)
if (fault !== undefined) plant(fault)
// Errors are part of every life here; what they say is enough.
Error.stackTraceLimit = 0
const { runSeed } = await import('./run.ts')
// A terminal sends it to all: who hands out the seeds decides.
process.on('SIGINT', () => {})
process.on('message', (seed: number) => {
  void runSeed(seed).then((outcome) => process.send?.(outcome))
})
