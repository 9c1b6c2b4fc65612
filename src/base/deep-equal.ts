/** Whether two plain values (as JSON can hold them, plus undefined and byte arrays) are the same. An absent key equals undefined. */
export function isDeepEqual(left: unknown, right: unknown): boolean {
  if (Object.is(left, right)) return true
  if (typeof left !== 'object' || typeof right !== 'object' || left === null || right === null)
    return false
  if (Array.isArray(left) !== Array.isArray(right)) return false
  if (Array.isArray(left) && Array.isArray(right)) {
    return (
      left.length === right.length && left.every((item, index) => isDeepEqual(item, right[index]))
    )
  }
  const keys = new Set([...Object.keys(left), ...Object.keys(right)])
  for (const key of keys)
    if (!isDeepEqual(Reflect.get(left, key), Reflect.get(right, key))) return false
  return true
}
