import { UserError } from '../../base/index.ts'

const memoryBytesMin = 4 * 1024 * 1024

/** Throws on amounts that no container can be held to. */
export function checkAmounts(nanoCpus: number, memoryBytes: number): void {
  if (nanoCpus !== 0 && nanoCpus < 1e6) {
    throw new UserError(
      'invalidInput',
      `invalid cpu value ${nanoCpus / 1e9}: Must be at least 0.001`,
    )
  }
  if (memoryBytes !== 0 && memoryBytes < memoryBytesMin) {
    throw new UserError(
      'invalidInput',
      `invalid memory value ${memoryBytes}: Must be at least 4MiB`,
    )
  }
}
