"""Operations on images, each of them a pure function.

- `color`: luma; `resize`: MATLAB's bicubic; `quantize`: [0,1] to 8 and 16 bits and back
- `fourier`, `patches`: the paper's detail enhancement and mini-patches (Eq. 12-17)
- `shuffle`: channels into space and back; `padding`: few compiled shapes for many image sizes
- `detail`: the part of an image that shows how methods differ
"""
