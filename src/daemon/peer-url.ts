/** The port on which managers' etcd speak to each other lies so far above the cluster port: 2380 beside 2377. */
const portsAbove = 3

/** Where a manager's etcd is reached, by the address of its cluster port. */
export function peerUrlOf(address: string): string {
  return `https://${peerAddressOf(address)}`
}

/** The same as `host:port`. */
export function peerAddressOf(address: string): string {
  const at = address.lastIndexOf(':')
  return `${address.slice(0, at)}:${Number(address.slice(at + 1)) + portsAbove}`
}
