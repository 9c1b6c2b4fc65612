/** The bridge device of a cluster network. A device's name has at most 15 characters. */
export function bridgeName(networkId: string): string {
  return `sk-${networkId.slice(0, 10)}`
}
