/** What the names of cluster networks' bridges begin with. */
export const bridgePrefix = 'sk-'

/** The bridge device of a cluster network. A device's name has at most 15 characters. */
export function bridgeName(networkId: string): string {
  return `${bridgePrefix}${networkId.slice(0, 10)}`
}
