/** A time, `10m` (that long ago) or seconds since 1970, as the engine takes it. Throws `invalidInput`. */
export async function sinceOf(text: string, nowMs: number): Promise<string> {
  // Loaded for those who ask for a time only.
  const logs = await import('./service-logs.ts')
  return logs.sinceOf(text, nowMs)
}
